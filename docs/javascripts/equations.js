// Draws what pymdownx.arithmatex has marked: \(...\) in spans, \[...\] in blocks.
for (const marked of document.querySelectorAll(".arithmatex")) {
  const displayMode = marked.tagName === "DIV";
  katex.render(marked.textContent.trim().slice(2, -2), marked, { displayMode, throwOnError: false });
}
