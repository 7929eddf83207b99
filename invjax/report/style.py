"""The style sheet of the report page."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16181d; --soft: #5b6270; --line: #dfe3e8; --well: #eef0f3;
  --accent: #1c5cc8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101216; --card: #181b21; --ink: #e8eaee; --soft: #9aa3b2; --line: #2b3039; --well: #23272f;
    --accent: #7aa7f7;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 64px; }
header h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.015em; }
header p { margin: 0; color: var(--soft); max-width: 75ch; }
nav { margin: 16px 0 0; display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: 0.93rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin-top: 36px; scroll-margin-top: 12px; }
h2 { font-size: 1.25rem; margin: 0 0 8px; letter-spacing: -0.01em; }
section > p { margin: 0 0 12px; max-width: 75ch; }
code { font: 0.9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--well);
  padding: 0.1em 0.35em; border-radius: 4px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 10px; margin: 14px 0; }
.fact { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; margin: 0; }
.fact dt { color: var(--soft); font-size: 0.85rem; }
.fact dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 14px 0; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; width: 100%; font-size: 0.94rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; }
thead th { color: var(--soft); font-weight: 600; font-size: 0.85rem; border-bottom: 1px solid var(--line); }
tbody tr + tr td { border-top: 1px solid var(--line); }
tbody th { text-align: left; padding-top: 12px; color: var(--soft); font-size: 0.85rem; font-weight: 600;
  border-top: 1px solid var(--line); background: var(--well); padding-bottom: 4px; }
tbody tr.quiet td { color: var(--soft); }
figure { margin: 14px 0; }
figure img { max-width: 100%; height: auto; border-radius: 8px; border: 1px solid var(--line); display: block; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 5px; max-width: 75ch; }
.figures { display: flex; flex-wrap: wrap; gap: 0 22px; align-items: flex-start; }
img.pixels { image-rendering: crisp-edges; image-rendering: pixelated; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--soft); font-size: 0.9rem; margin: 18px 0 6px; }
.legend i { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 3px; margin-right: 0.4em; }
.example { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 14px 0;
  padding: 14px; display: flex; gap: 18px; align-items: flex-start; }
.example > div { min-width: 0; flex: 1; }
.example figure { margin: 0; flex: none; }
.example img { display: block; margin: 0 auto; border: 0; border-radius: 4px; background: var(--well); }
.example figcaption { text-align: center; font-size: 0.85rem; }
.example figcaption b { color: var(--ink); }
.example h3 { font-size: 0.9rem; margin: 0 0 6px; }
.example h3 span { font-weight: 400; color: var(--soft); }
.strip { overflow-x: auto; padding-bottom: 6px; -webkit-overflow-scrolling: touch; }
.strip + h3 { margin-top: 14px; }
.strip table { width: auto; font-size: 0.82rem; }
.strip th, .strip td, .strip tbody tr + tr td { padding: 2px 4px; text-align: center; border: 0; }
.strip thead th { color: var(--ink); font-size: 0.76rem; padding-bottom: 3px; }
.strip thead th div { overflow: hidden; text-overflow: ellipsis; margin: 0 auto; }
.strip tbody th { color: var(--soft); font-weight: 400; font-size: 0.82rem; text-align: right; padding: 0 8px 0 0;
  min-width: 7.4em;
  border: 0; background: var(--card); position: sticky; left: 0; z-index: 1; }
.strip td.small { color: var(--soft); line-height: 1.3; padding-top: 3px; }
.blank { display: flex; align-items: center; justify-content: center; background: var(--well); border-radius: 4px;
  color: var(--soft); font-size: 0.78rem; white-space: normal; line-height: 1.2; padding: 4px; }
footer { margin-top: 44px; color: var(--soft); font-size: 0.88rem; border-top: 1px solid var(--line);
  padding-top: 12px; }
@media (max-width: 640px) {
  main { padding: 18px 12px 48px; }
  .example { flex-direction: column; gap: 10px; padding: 12px; }
  .example > div { width: 100%; }
  .example figure { display: flex; align-items: center; gap: 12px; }
  .example figcaption { text-align: left; margin: 0; }
  th, td { padding: 6px 10px; }
}
@media print { body { background: #fff; } .scroll, .example { break-inside: avoid; } }
"""
