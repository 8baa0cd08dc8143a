// The preprocessing of medres in JavaScript without dependencies: from a DICOM file to the integers
// that a model receives. It follows docs/reference/preprocessing.md, step by step.
//
//   node preprocess.mjs EXPORT                       check it on the golden vectors of an export
//   node preprocess.mjs EXPORT image.dcm out.bin     prepare one file
//
// EXPORT is the folder with serving.json; out.bin gets the integers, little endian, row by row.
// Uncompressed single images in explicit little endian only (layout "image").
// Research use only. Not a medical device.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const AIR = -1024, FILL_BELOW = -1500, FILL_SHARE = 0.01;
const f32 = Math.fround;

/** Integers (rows * cols) of a DICOM file; spec: `preprocess` of serving.json. */
export function prepare(bytes, spec) {
  const ds = parse(bytes);
  requireSupported(ds, spec);
  const stored = storedValues(ds);
  const padding = paddingMask(ds, stored);
  const modality = modalityValues(ds, stored);
  const shown = spec.units === "HU" ? hounsfield(modality, padding) : display(ds, modality, padding);
  const shape = [number(ds, "00280010"), number(ds, "00280011")];
  if (!shown.every(Number.isFinite)) throw new Error("the values are not finite");
  const [rows, cols] = innerSize(shape, aspect(ds), spec);
  let grid = Float64Array.from(shown);
  grid = transposed(ontoAxis(grid, shape[0], shape[1], rows, spec.rows, spec.fill), spec.rows, shape[1]);
  grid = transposed(ontoAxis(grid, shape[1], spec.rows, cols, spec.cols, spec.fill), spec.cols, spec.rows);
  const [low, high] = spec.dtype === "int16" ? [-32768, 32767] : [0, 65535];
  const integers = Array.from(grid, (value) => Math.min(high, Math.max(low, rint(value / spec.scale))));
  return spec.dtype === "int16" ? Int16Array.from(integers) : Uint16Array.from(integers);
}

// Step 0: the elements of a file, as {tag: {vr, bytes | items}}

const LONG = new Set(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]);
const UNDEFINED = 0xffffffff;

export function parse(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isDicom = bytes.length > 132 && String.fromCharCode(...bytes.subarray(128, 132)) === "DICM";
  if (!isDicom) throw new Error("not a DICOM file");
  const ds = elements(view, 132, view.byteLength)[0];
  const syntax = text(ds, "00020010");
  if (syntax !== "1.2.840.10008.1.2.1") throw new Error(`transfer syntax ${syntax} is not supported`);
  return ds;
}

function elements(view, start, end) {
  const found = {};
  let at = start;
  while (at < end) {
    const tag = tagAt(view, at);
    if (tag === "fffee00d") return [found, at + 8]; // the end of an item of undefined length
    const vr = String.fromCharCode(view.getUint8(at + 4), view.getUint8(at + 5));
    const wide = LONG.has(vr);
    const length = wide ? view.getUint32(at + 8, true) : view.getUint16(at + 6, true);
    at += wide ? 12 : 8;
    if (vr === "SQ") {
      const [items, next] = sequence(view, at, length === UNDEFINED ? end : at + length);
      found[tag] = { vr, items };
      at = next;
    } else {
      if (length === UNDEFINED || at + length > end) throw new Error(`element ${tag} is cut off or encapsulated`);
      found[tag] = { vr, bytes: new Uint8Array(view.buffer, view.byteOffset + at, length) };
      at += length;
    }
  }
  return [found, at];
}

function sequence(view, start, end) {
  const items = [];
  let at = start;
  while (at < end) {
    const tag = tagAt(view, at), length = view.getUint32(at + 4, true);
    at += 8;
    if (tag === "fffee0dd") break; // the end of a sequence of undefined length
    const [item, next] = elements(view, at, length === UNDEFINED ? end : at + length);
    items.push(item);
    at = next;
  }
  return [items, at];
}

const tagAt = (view, at) =>
  [at, at + 2].map((place) => view.getUint16(place, true).toString(16).padStart(4, "0")).join("");

/** The values of an element: numbers where the VR is US, SS, DS or IS, else strings; [] if absent. */
function values(ds, tag) {
  const element = ds[tag];
  if (!element || !element.bytes || element.bytes.length === 0) return [];
  const { vr, bytes } = element;
  if (vr === "US" || vr === "SS") {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Array.from({ length: bytes.length >> 1 }, (_, i) =>
      vr === "US" ? view.getUint16(2 * i, true) : view.getInt16(2 * i, true));
  }
  const parts = new TextDecoder("latin1").decode(bytes).replace(/[\0 ]+$/, "").split("\\").map((s) => s.trim());
  if (parts.length === 1 && parts[0] === "") return [];
  return vr === "DS" || vr === "IS" ? parts.map((part) => (part === "" ? NaN : Number(part))) : parts;
}

const number = (ds, tag, otherwise = null) => values(ds, tag)[0] ?? otherwise;
const text = (ds, tag) => String(values(ds, tag)[0] ?? "");
const firstItem = (ds, tag) => ds[tag]?.items?.[0];

/** Throws for a file whose integers would be wrong, or which medres does not accept. */
function requireSupported(ds, spec) {
  const gray = ["MONOCHROME1", "MONOCHROME2"].includes(text(ds, "00280004"));
  if (!gray || number(ds, "00280002", 1) !== 1 || (number(ds, "00280008") || 1) !== 1) {
    throw new Error("the file does not hold one grayscale image");
  }
  const item = firstItem(ds, "00283000"), slope = number(ds, "00281053");
  if (!item && slope === 0) throw new Error("RescaleSlope is 0");
  if (spec.units !== "HU") return;
  const unit = (text(ds, "00281054") || "HU").toUpperCase();
  const declared = slope !== null || number(ds, "00281052") !== null;
  if (item || !declared || unit !== "HU") throw new Error("the values are not in HU");
}

// Step 1: stored values

function layoutOf(ds) {
  const allocated = number(ds, "00280100");
  const bits = number(ds, "00280101") || allocated;
  return { allocated, bits, high: number(ds, "00280102", bits - 1), signed: number(ds, "00280103") === 1 };
}

function storedValues(ds) {
  const { allocated, bits, high, signed } = layoutOf(ds);
  const count = number(ds, "00280010") * number(ds, "00280011");
  const data = ds["7fe00010"]?.bytes;
  if (![8, 16, 32].includes(allocated) || !data || data.length < (count * allocated) / 8) {
    throw new Error("there is no complete uncompressed image");
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const cell = {
    8: (i) => view.getUint8(i), 16: (i) => view.getUint16(2 * i, true), 32: (i) => view.getUint32(4 * i, true),
  }[allocated];
  const stored = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const value = Math.floor(cell(i) / 2 ** (high + 1 - bits)) % 2 ** bits;
    stored[i] = signed && value >= 2 ** (bits - 1) ? value - 2 ** bits : value;
  }
  return stored;
}

function paddingMask(ds, stored) {
  const value = number(ds, "00280120"), limit = number(ds, "00280121");
  if (value === null) return stored.map(() => 0);
  const { allocated, signed } = layoutOf(ds);
  const span = 2 ** allocated, least = signed ? -span / 2 : 0;
  const bounds = [value, limit ?? value].map((bound) => ((((bound - least) % span) + span) % span) + least);
  const low = Math.min(...bounds), high = Math.max(...bounds);
  return stored.map((each) => (each >= low && each <= high ? 1 : 0));
}

// Step 2: modality transform

function modalityValues(ds, stored) {
  const item = firstItem(ds, "00283000");
  if (item) {
    const lut = lookUpTable(item, layoutOf(ds).signed);
    return Float32Array.from(stored, lut.at);
  }
  const [slope, intercept] = rescale(ds);
  return Float32Array.from(stored, (value) => value * slope + intercept);
}

const rescale = (ds) => [number(ds, "00281053", 1), number(ds, "00281052", 0)];

function lookUpTable(item, signed) {
  const [entries, start, declared] = values(item, "00283002").map((each) => each & 0xffff);
  const count = entries || 65536, data = item["00283006"].bytes;
  const isBytes = data.length === count || data.length === count + (count % 2);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const table = Array.from({ length: count }, (_, i) => (isBytes ? view.getUint8(i) : view.getUint16(2 * i, true)));
  const first = signed && start >= 0x8000 ? start - 0x10000 : start;
  const needed = Math.max(table.reduce((a, b) => Math.max(a, b), 0).toString(2).length, 1);
  const trusted = needed <= declared && declared <= 16 && !(declared === 16 && needed <= 12);
  const at = (value) => table[Math.min(count - 1, Math.max(0, rint(value) - first))];
  return { bits: trusted ? declared : needed, at };
}

// Step 3: HU, or display values

function hounsfield(modality, padding) {
  const result = modality.map((value, i) => (padding[i] ? AIR : value));
  const outside = result.reduce((count, value) => count + (value < FILL_BELOW), 0);
  return outside >= FILL_SHARE * result.length ? result.map((value) => (value < FILL_BELOW ? AIR : value)) : result;
}

function display(ds, modality, padding) {
  const item = firstItem(ds, "00283010"), window = windowOf(ds);
  let shown;
  if (item) {
    const lut = lookUpTable(item, !firstItem(ds, "00283000") && lowest(ds) < 0);
    shown = modality.map((value) => lut.at(value) / (2 ** lut.bits - 1));
  } else if (window) shown = windowed(modality, window);
  else shown = minMax(modality, padding);
  if (text(ds, "00280004") === "MONOCHROME1") shown = shown.map((value) => 1 - value);
  return shown.map((value, i) => (padding[i] ? 0 : value));
}

/** The smallest modality output that BitsStored allows. */
function lowest(ds) {
  const { bits, signed } = layoutOf(ds), [slope, intercept] = rescale(ds);
  const low = signed ? -(2 ** (bits - 1)) : 0;
  return Math.min(slope * low + intercept, slope * (low + 2 ** bits - 1) + intercept);
}

function windowOf(ds) {
  const name = text(ds, "00281056");
  const kind = ["LINEAR_EXACT", "SIGMOID"].includes(name) ? name : "LINEAR";
  const centers = values(ds, "00281050"), widths = values(ds, "00281051");
  for (let i = 0; i < Math.min(centers.length, widths.length); i++) {
    const [center, width] = [centers[i], widths[i]];
    const usable = kind === "LINEAR" ? width >= 1 : width > 0;
    if (Number.isFinite(center) && Number.isFinite(width) && usable) return { center, width, kind };
  }
  return null;
}

function windowed(modality, { center, width, kind }) {
  const linear = kind === "LINEAR";
  const middle = f32(linear ? center - 0.5 : center), span = f32(linear ? width - 1 : width);
  if (span === 0) return modality.map((value) => (value > middle ? 1 : 0));
  return modality.map((value) => {
    const x = f32(f32(value - middle) / span);
    if (kind !== "SIGMOID") return Math.min(1, Math.max(0, f32(x + 0.5)));
    const power = f32(Math.exp(Math.min(80, Math.max(-80, f32(-4 * x)))));
    return f32(1 / f32(1 + power));
  });
}

function minMax(modality, padding) {
  const all = padding.every((each) => each);
  let low = Infinity, high = -Infinity;
  modality.forEach((value, i) => {
    if (!all && padding[i]) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  });
  if (low === high) return modality.map(() => 0);
  return modality.map((value) => Math.min(1, Math.max(0, (value - low) / (high - low))));
}

// Step 4: onto the grid

/** Height of a pixel divided by its width. */
function aspect(ds) {
  for (const tag of ["00280030", "00181164", "00280034"]) {
    const pair = values(ds, tag);
    if (pair.length === 2 && pair.every((side) => side > 0 && Number.isFinite(side))) {
      const [height, width] = pair;
      return width / 16 <= height && height <= width * 16 ? height / width : 1;
    }
  }
  return 1;
}

/** Rows and columns of the resampled image, before padding. */
function innerSize(shape, ratio, spec) {
  const out = [spec.rows, spec.cols], spacing = [ratio, 1];
  if (spec.fit === "stretch") return out;
  const scale = Math.min(...out.map((each, i) => each / (shape[i] * spacing[i])));
  return shape.map((size, i) => Math.max(1, rint(size * spacing[i] * scale)));
}

/** An array (size, width), its first axis resampled to `inner` and padded or cropped to `out`. */
function ontoAxis(array, size, width, inner, out, fill) {
  const resampled = triangle(array, size, width, inner);
  const offset = Math.floor((inner - out) / 2);
  if (inner >= out) return resampled.subarray(offset * width, (offset + out) * width);
  const grid = new Float64Array(out * width).fill(fill);
  grid.set(resampled, -offset * width);
  return grid;
}

/** The first axis of an array (size, width) resampled to `count`: a triangle filter, antialiased. */
function triangle(array, size, width, count) {
  if (size === count) return array;
  const step = size / count, support = Math.max(step, 1), taps = Math.ceil(2 * support) + 1;
  const result = new Float64Array(count * width);
  for (let row = 0; row < count; row++) {
    const center = (row + 0.5) * step, first = Math.floor(center - support);
    const weights = Array.from({ length: taps }, (_, k) => {
      const inside = first + k >= 0 && first + k < size;
      return inside ? Math.max(0, 1 - Math.abs(first + k + 0.5 - center) / support) : 0;
    });
    const total = sumOf(weights);
    for (let k = 0; k < taps; k++) {
      const weight = weights[k] / total;
      if (weight > 0) {
        const from = (first + k) * width, to = row * width;
        for (let i = 0; i < width; i++) result[to + i] += weight * array[from + i];
      }
    }
  }
  return result;
}

/** The sum of float64 numbers in the order of numpy: it decides the last bit. */
function sumOf(terms) {
  if (terms.length < 8) return terms.reduce((a, b) => a + b, 0);
  if (terms.length > 128) {
    const half = Math.floor(terms.length / 2);
    const split = half - (half % 8);
    return sumOf(terms.slice(0, split)) + sumOf(terms.slice(split));
  }
  const r = terms.slice(0, 8), whole = terms.length - (terms.length % 8);
  for (let i = 8; i < whole; i++) r[i % 8] += terms[i];
  const sum = r[0] + r[1] + (r[2] + r[3]) + (r[4] + r[5] + (r[6] + r[7]));
  return terms.slice(whole).reduce((a, b) => a + b, sum);
}

function transposed(array, rows, columns) {
  const result = new Float64Array(rows * columns);
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) result[x * rows + y] = array[y * columns + x];
  return result;
}

/** The nearest integer; of two, the even one. */
function rint(value) {
  const low = Math.floor(value), rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

// The export

function verify(folder, spec) {
  const { vectors } = JSON.parse(readFileSync(join(folder, "golden", "index.json"), "utf8"));
  let equal = 0;
  for (const { name, files, prepared } of vectors) {
    const expected = readFileSync(join(folder, "golden", prepared.path));
    const integers = prepare(readFileSync(join(folder, "golden", files[0].path)), spec);
    const same = createHash("sha256").update(littleEndian(integers)).digest("hex") === prepared.sha256
      && expected.equals(littleEndian(integers));
    equal += same;
    console.log(`${name}: ${same ? "equal" : "differs"}`);
  }
  console.log(`${equal} of ${vectors.length} golden vectors are equal`);
  return equal === vectors.length ? 0 : 1;
}

function littleEndian(integers) {
  const buffer = Buffer.alloc(integers.length * 2);
  integers.forEach((value, i) => buffer.writeUInt16LE(value & 0xffff, 2 * i));
  return buffer;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, file, out] = process.argv.slice(2);
  const spec = JSON.parse(readFileSync(join(folder, "serving.json"), "utf8")).preprocess;
  if (file) writeFileSync(out, littleEndian(prepare(readFileSync(file), spec)));
  else process.exitCode = verify(folder, spec);
}
