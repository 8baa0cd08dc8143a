"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const percent = (v) => (v === null || !isFinite(v) ? "–" : (100 * v).toFixed(v === 0 || v === 1 || (v >= 0.01 && v <= 0.99) ? 0 : 1) + "%");
  const signed = (v) => (v < 0 ? "−" : "") + Math.abs(v).toFixed(4);
  const short = (v) => (v === null ? "∞" : Number(v.toPrecision(4)).toString());

  function wilson(k, n, q) {
    if (n <= 0) return [null, null];
    const p = k / n, z2 = q * q, middle = (p + z2 / (2 * n)) / (1 + z2 / n);
    const half = (q / (1 + z2 / n)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
    return [k <= 0 ? 0 : Math.max(0, middle - half), k >= n ? 1 : Math.min(1, middle + half)];
  }

  function rate(k, n, effect, q) {
    const [low, high] = wilson(k / effect, n / effect, q);
    return n > 0 ? `${percent(k / n)} (${percent(low)} to ${percent(high)})` : "–";
  }

  /* A figure states its plot area and axes; these functions place a mark in data units. */
  function place(svg, x, y) {
    const [left, top, w, h] = svg.dataset.box.split(" ").map(Number);
    const [x0, x1] = svg.dataset.x.split(" ").map(Number), [y0, y1] = svg.dataset.y.split(" ").map(Number);
    return [left + ((x - x0) / (x1 - x0)) * w, top + h - ((y - y0) / (y1 - y0)) * h];
  }

  function element(svg, tag, role) {
    let node = svg.querySelector(`[data-live="${CSS.escape(role)}"]`);
    if (!node) {
      node = document.createElementNS(SVG, tag);
      node.dataset.live = role;
      svg.append(node);
    }
    return node;
  }

  function dot(svg, role, x, y) {
    const [cx, cy] = place(svg, x, y), mark = element(svg, "circle", role);
    mark.setAttribute("class", "live");
    for (const [name, value] of [["cx", cx], ["cy", cy], ["r", 6]]) mark.setAttribute(name, value.toFixed ? value.toFixed(2) : value);
  }

  function vertical(svg, role, x) {
    const [, y0, , ] = svg.dataset.box.split(" ").map(Number), height = Number(svg.dataset.box.split(" ")[3]);
    const [px] = place(svg, x, 0), line = element(svg, "line", role);
    line.setAttribute("class", "live-line");
    for (const [name, value] of [["x1", px], ["x2", px], ["y1", y0], ["y2", y0 + height]]) line.setAttribute(name, value.toFixed(2));
  }

  async function copy(node, status) {
    try { await navigator.clipboard.writeText(node.textContent); status.textContent = "Copied."; } catch {
      const range = document.createRange();
      range.selectNodeContents(node);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      status.textContent = "Text selected: press Ctrl+C to copy.";
    }
  }

  function curve(svg, role, css, shown, counts) {
    const line = element(svg, "polyline", role);
    line.setAttribute("class", css);
    line.setAttribute("visibility", shown ? "visible" : "hidden");
    const points = [[0, 0], ...counts.fp.map((v, i) => [v / counts.negative, counts.tp[i] / counts.positive])];
    line.setAttribute("points", points.map(([x, y]) => place(svg, x, y).map((v) => v.toFixed(1)).join(",")).join(" "));
  }

  /* Downloads: the figure with the style of the page as attributes, and the numbers behind it. */
  const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "font-size", "font-weight", "font-family", "visibility"];

  function standalone(svg) {
    const copy = svg.cloneNode(true), [, , width, height] = svg.getAttribute("viewBox").split(" ");
    const originals = svg.querySelectorAll("*"), gone = [];
    copy.querySelectorAll("*").forEach((node, i) => {
      const style = getComputedStyle(originals[i]);
      if (style.display === "none") gone.push(node);
      for (const look of LOOKS) node.setAttribute(look, style.getPropertyValue(look));
    });
    gone.forEach((node) => node.remove());
    const paper = document.createElementNS(SVG, "rect");
    for (const [name, value] of [["width", width], ["height", height], ["fill", "#ffffff"]]) paper.setAttribute(name, value);
    copy.prepend(paper);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    return new XMLSerializer().serializeToString(copy);
  }

  function thresholdTable(f) {
    const part = (a, b) => (b > 0 ? a / b : "");
    const rows = f.threshold.map((t, i) => {
      const tp = f.tp[i], fp = f.fp[i], fn = f.positive - tp, tn = f.negative - fp;
      return [t === null ? "" : t, tp, fp, fn, tn, part(tp, tp + fn), part(tn, tn + fp), part(tp, tp + fp), part(tn, tn + fn), part(tp + fp, tp + fp + fn + tn)].join(",");
    });
    return ["threshold,tp,fp,fn,tn,sensitivity,specificity,ppv,npv,ppcr", ...rows].join("\n") + "\n";
  }

  function save(name, url) {
    const link = document.createElement("a");
    link.download = name;
    link.href = url;
    link.click();
  }

  function download(button) {
    const svg = button.closest("figure").querySelector("svg"), kind = button.dataset.download, figure = svg.dataset.figure;
    const finding = data[Number(button.dataset.finding)], name = `${finding.name} ${figure}.${kind}`.replace(/[^\w.-]+/g, "_");
    const text = (type, content) => `data:${type};charset=utf-8,${encodeURIComponent(content)}`;
    if (kind === "csv") return save(name, text("text/csv", finding.tables[figure] ?? thresholdTable(finding.views[0])));
    const drawn = text("image/svg+xml", standalone(svg));
    if (kind === "svg") return save(name, drawn);
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = 3 * image.width;
      canvas.height = 3 * image.height;
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      save(name, canvas.toDataURL("image/png"));
    };
    image.src = drawn;
  }

  function explore(panel, finding) {
    const get = (role) => panel.querySelector(`[data-role="${role}"]`);
    const section = panel.closest("section"), roc = section.querySelector('svg[data-figure="roc"]');
    const histogram = section.querySelector('svg[data-figure="histogram"]'), recall = section.querySelector('svg[data-figure="recall"]');
    const risks = [...section.querySelectorAll('svg[data-figure="utility"], svg[data-figure="calibration"]')];
    const at = (value) => ({ threshold: f.threshold[last - value], tp: f.tp[last - value], fp: f.fp[last - value], name: null, origin: "moved" });
    let f, last, P, N, state;

    function nearest(threshold) {
      let best = 0;
      f.threshold.forEach((t, i) => { if (Math.abs(t - threshold) < Math.abs(f.threshold[best] - threshold)) best = i; });
      return last - best;
    }

    function sentence() {
      const where = state.name ? `the ${state.origin} threshold “${state.name}” (${state.why ?? short(state.threshold)})` : `a threshold of ${short(state.threshold)} (selected by hand)`;
      const about = finding.name === "positive" ? "At" : `${finding.name}: at`;
      return `${about} ${where}, ${state.tp} of ${P} ${f.units} with the finding were classified as positive [sensitivity ${rate(state.tp, P, f.effects[0], f.quantiles[0])}] ` +
        `and ${N - state.fp} of ${N} ${f.units} without the finding as negative [specificity ${rate(N - state.fp, N, f.effects[1], f.quantiles[1])}].`;
    }

    function thousand() {
      const prevalence = Number(get("prevalence").value) / 1000, diseased = Math.round(1000 * prevalence);
      const se = state.tp / P, fpr = state.fp / N, detected = Math.round(diseased * se), falsePositives = Math.round((1000 - diseased) * fpr);
      const ppv = (prevalence * se) / (prevalence * se + (1 - prevalence) * fpr), npv = ((1 - prevalence) * (1 - fpr)) / ((1 - prevalence) * (1 - fpr) + prevalence * (1 - se));
      get("prevalence-value").textContent = percent(prevalence);
      get("thousand").textContent = `Of 1,000 ${f.units}, ${diseased} have the finding: ${detected} are detected and ${diseased - detected} are missed. Of the ${1000 - diseased} without the finding, ${falsePositives} are false positives. ` +
        `PPV ${percent(ppv)}, NPV ${percent(npv)}.`;
    }

    function bands() {
      const two = get("two").checked, slider = get("second");
      slider.disabled = !two;
      get("bands").hidden = !two;
      if (histogram) element(histogram, "line", "second").setAttribute("visibility", two ? "visible" : "hidden");
      if (!two) return;
      const low = at(Number(slider.value)), high = state;
      if (low.threshold > high.threshold) { get("bands").textContent = "The rule-out threshold must be below the rule-in threshold."; return; }
      const out = P + N - low.tp - low.fp, inside = low.tp + low.fp - high.tp - high.fp;
      get("bands").textContent = `Ruled in (score ≥ ${short(high.threshold)}): ${high.tp + high.fp} ${f.units}, ${high.tp} with the finding. ` +
        `Ruled out (score < ${short(low.threshold)}): ${out}, of which ${P - low.tp} have the finding. Indeterminate: ${inside} (${percent(inside / (P + N))}).`;
      if (histogram && low.threshold !== null) vertical(histogram, "second", low.threshold);
    }

    function draw() {
      const { tp, fp, threshold } = state, fn = P - tp, tn = N - fp;
      for (const [role, value] of Object.entries({ tp, fp, fn, tn })) get(role).textContent = value;
      get("threshold").textContent = state.why ?? short(threshold);
      get("sensitivity").textContent = rate(tp, P, f.effects[0], f.quantiles[0]);
      get("specificity").textContent = rate(tn, N, f.effects[1], f.quantiles[1]);
      get("lr").textContent = `LR+ ${fp ? short(tp / P / (fp / N)) : "–"}, LR− ${tn ? short(fn / P / (tn / N)) : "–"}`;
      const inside = f.probability && threshold > 0 && threshold < 1, share = f.prevalence;
      const benefit = (tp / P) * share - ((fp / N) * (1 - share) * threshold) / (1 - threshold);
      const everyone = share - ((1 - share) * threshold) / (1 - threshold), avoided = (benefit - everyone) / (threshold / (1 - threshold));
      get("benefit").textContent = inside && share !== null ? `Net benefit at a threshold probability of ${percent(threshold)} and a prevalence of ${percent(share)}: ${signed(benefit)} per ${f.unit} (treat all: ${signed(everyone)}; ` +
        `${Math.abs(100 * avoided).toFixed(0)} ${avoided < 0 ? "more" : "fewer"} interventions per 100 ${f.units} for the same number of cases found)` : "";
      const badge = get("badge");
      badge.textContent = state.name ? `${state.name} (${state.origin})` : "selected by hand: not a pre-specified threshold";
      badge.className = "badge " + (state.name && state.origin !== "exploratory" ? "frozen" : "exploratory");
      if (roc) dot(roc, "point", fp / N, tp / P);
      if (histogram && threshold !== null) vertical(histogram, "threshold", threshold);
      if (recall) {
        dot(recall, "point", tp / P, tp + fp > 0 ? tp / (tp + fp) : 0);
        element(recall, "circle", "point").setAttribute("visibility", f === finding.views[0] && tp + fp > 0 ? "visible" : "hidden");
      }
      risks.forEach((svg) => {
        element(svg, "line", "threshold").setAttribute("visibility", inside ? "visible" : "hidden");
        if (inside) vertical(svg, "threshold", threshold);
      });
      get("slider").setAttribute("aria-valuetext", `threshold ${short(threshold)}`);
      get("sentence").textContent = sentence();
      thousand();
      bands();
    }

    const slider = get("slider");

    /* Switch the unit of analysis: by image or by patient. */
    function show(number) {
      f = finding.views[number];
      last = f.threshold.length - 1;
      P = f.positive;
      N = f.negative;
      state = f.points.length ? f.points[0] : at(Math.round(last / 2));
      slider.max = get("second").max = last;
      slider.value = nearest(state.threshold);
      get("second").value = Math.round(last / 4);
      section.querySelectorAll("[data-hero]").forEach((hero) => { hero.hidden = finding.views.length > 1 && Number(hero.dataset.hero) !== number; });
      section.querySelectorAll('[data-role="view"]').forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.view) === number)));
      if (roc && finding.views.length > 1) curve(roc, "other-unit", "overlay unit", number === 1, finding.views[1]);
      draw();
    }

    slider.addEventListener("input", () => { state = at(Number(slider.value)); draw(); });
    get("second").addEventListener("input", draw);
    get("two").addEventListener("change", draw);
    get("prevalence").addEventListener("input", thousand);
    panel.querySelectorAll('[data-role="reset"]').forEach((button) => button.addEventListener("click", () => {
      state = f.points[Number(button.dataset.point)];
      slider.value = nearest(state.threshold);
      draw();
    }));
    get("copy").addEventListener("click", () => copy(get("sentence"), get("copied")));
    panel.querySelectorAll('[data-role="overlay"]').forEach((button) => button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") === "true", number = Number(button.dataset.overlay);
      button.setAttribute("aria-pressed", String(!shown));
      curve(roc, "overlay" + number, "overlay o" + (number % 4), !shown, finding.overlays[number]);
    }));
    section.querySelectorAll('[data-role="view"]').forEach((button) => button.addEventListener("click", () => show(Number(button.dataset.view))));
    section.querySelectorAll(".views").forEach((switcher) => { switcher.hidden = false; });
    panel.hidden = false;
    show(0);
  }

  /* In print, all sections are open. */
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((section) => { section.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((section) => { section.open = false; }));

  document.querySelectorAll(".downloads").forEach((line) => { line.hidden = false; });
  document.querySelectorAll("[data-download]").forEach((button) => button.addEventListener("click", () => download(button)));

  const find = (role) => document.querySelector(`[data-role="${role}"]`);
  find("methods-buttons").hidden = false;
  find("copy-methods").addEventListener("click", () => copy(find("methods"), find("methods-copied")));
  document.querySelectorAll("[data-explore]").forEach((panel) => explore(panel, data[Number(panel.dataset.explore)]));
})();
