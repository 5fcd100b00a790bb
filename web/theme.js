// Set the light or dark theme before the page is drawn: the theme of the system, or the theme chosen on this
// page.
"use strict";
{
  const NEXT = { system: "light", light: "dark", dark: "system" };
  const SIGNS = { system: "◐", light: "☀", dark: "☾" };
  const root = document.documentElement;
  // the browser may forbid storage
  const read = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const choose = (theme) => {
    root.dataset.theme = theme;
    try { localStorage.setItem("theme", theme); } catch { /* then it lasts as long as the page */ }
  };
  root.dataset.theme = read() in NEXT ? read() : "system";
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      const name = `Theme: ${root.dataset.theme}`;
      button.textContent = `${SIGNS[root.dataset.theme]} ${name}`;
      button.setAttribute("aria-label", name);
    };
    button.onclick = () => { choose(NEXT[root.dataset.theme]); show(); };
    show();
  });
}
