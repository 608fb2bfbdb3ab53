// What JupyterLab does once, also where the page is loaded again: in the notebook of this kernel it
// puts another value into the parameters cell. A value is strings, lists in one pair of brackets,
// and what else stands before a comment. Given: once, kernel, name, value.
const string = String.raw`"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'`;
const written = String.raw`(?:${string}|\[(?:${string}|[^\]"'])*\]|[^#"'[\n])*?`;
const line = new RegExp(String.raw`^(${name} *= *)${written}(?=[ \t]*(?:#|$))`, "gm");
let cells = 0;
for (const panel of window.jupyterapp?.shell.widgets("main") ?? []) {
  if (panel.context?.sessionContext?.session?.kernel?.id !== kernel) continue;
  for (const cell of panel.context.model.sharedModel.cells ?? []) {
    if (!cell.getMetadata("tags")?.includes("parameters")) continue;
    cells += 1;
    if (!sessionStorage.getItem(once))
      cell.setSource(cell.source.replace(line, (_, start) => start + value));
  }
}
sessionStorage.setItem(once, "done");
if (!cells) element.textContent =
  `Not written into the parameters cell, which "senet lab" can do: ${name} = ${value}`;
