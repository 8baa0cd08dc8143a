// Drag and drop for the upload form: files and whole folders. Without it the form works as it is.
"use strict";
const form = document.getElementById("upload");
const input = document.getElementById("files");
const progress = document.getElementById("progress");
for (const element of form.querySelectorAll(".with-script")) element.hidden = false;

function say(text) {
  progress.textContent = text;
}

function entriesOf(reader) {
  return new Promise((resolve, reject) => reader.readEntries(resolve, reject));
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const files = [];
  for (let part = await entriesOf(reader); part.length; part = await entriesOf(reader))
    for (const inner of part) files.push(...(await filesOf(inner)));
  return files;
}

for (const kind of ["dragenter", "dragover"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    form.classList.add("over");
  });
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  form.classList.remove("over");
  const entries = [...event.dataTransfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry());
  const plain = [...event.dataTransfer.files];
  try {
    const files = entries.every(Boolean)
      ? (await Promise.all(entries.map(filesOf))).flat()
      : plain;
    const chosen = new DataTransfer();
    for (const file of files) chosen.items.add(file);
    if (!chosen.files.length) return say("Nothing in it is a file.");
    input.files = chosen.files;
    form.requestSubmit();
  } catch (error) {
    say("The files could not be read. Choose them with the button instead.");
  }
});
form.addEventListener("submit", () => {
  const count = input.files.length;
  say(`Sending ${count} ${count === 1 ? "file" : "files"} …`);
});
