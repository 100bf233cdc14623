// SPDX-License-Identifier: MIT
// What the book adds to the theme's scripts.

document.addEventListener("DOMContentLoaded", () => {
  // On a phone the contents lie over the page; a tap on a heading of this page puts them away.
  document.querySelectorAll("dialog").forEach((drawer) => {
    drawer.addEventListener("click", (event) => {
      if (event.target.closest("a[href]") && drawer.open) drawer.close();
    });
  });

  // What scrolls sideways takes the focus, so that arrow keys can move it.
  const reach = () => {
    document.querySelectorAll(".bd-article pre, .bd-article table, .bd-article div.math").forEach((box) => {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      if (scrolls && !box.hasAttribute("tabindex")) {
        box.tabIndex = 0;
        box.dataset.reach = "";
      } else if (!scrolls && "reach" in box.dataset) {
        box.removeAttribute("tabindex");
        delete box.dataset.reach;
      }
    });
  };
  reach();
  addEventListener("load", reach);
  addEventListener("resize", reach);
  // A folded cell has no width until it is opened.
  document.addEventListener("toggle", reach, true);

  // On paper text is dark and paper white, whatever the theme.
  let theme;
  addEventListener("beforeprint", () => {
    theme ??= document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    document.querySelectorAll("img[loading=lazy]").forEach((image) => (image.loading = "eager"));
  });
  addEventListener("afterprint", () => {
    if (theme) document.documentElement.dataset.theme = theme;
    theme = undefined;
  });
});
