/** The text of a contract with its highlights, where words are selected. */

import { h } from "./elements.js";
import { Selection } from "./selection.js";
import { t } from "./language.js";

const BLOCK = 2000; // characters, about: each block is laid out only when it is near

export class TextSurface {
  constructor(text, colours, onpick) {
    this.text = text;
    this.colours = colours;
    this.items = [];
    this.selection = new Selection(text);
    this.blocks = splitBlocks(text.string).map(([start, end]) => ({
      start: text.toOffset(start),
      end: text.toOffset(end),
      element: h("div", { class: "block", "data-start": text.toOffset(start) }),
    }));
    this.element = h(
      "div",
      {
        class: "surface text",
        tabindex: 0,
        role: "textbox",
        "aria-readonly": "true",
        "aria-multiline": "true",
        "aria-label": t("surface"),
        onkeydown: (event) => this.selection.handleKey(event, this.#findVisible()),
        onclick: (event) => this.#pick(event, onpick),
      },
      this.blocks.map((block) => block.element),
    );
    this.takeSelection = () => this.#takeMouseSelection();
    document.addEventListener("pointerup", this.takeSelection); // also if the mouse has left the text
    this.selection.addEventListener("move", () => {
      this.#draw();
      this.#revealSelection();
    });
  }

  show(items, current) {
    this.items = items;
    this.current = current;
    this.#draw();
  }

  reveal(item) {
    const mark = this.element.querySelector(`[data-keys~="${item.start}-${item.end}"]`);
    (mark ?? this.#findBlock(item.start).element).scrollIntoView({ block: "nearest" });
  }

  #findBlock(offset) {
    return this.blocks.find((block) => offset < block.end) ?? this.blocks.at(-1);
  }

  /** Draw anew each block whose highlights have changed. */
  #draw() {
    const range = this.selection.range;
    const spans = [...this.items];
    if (range) spans.push({ start: range[0], end: range[1], isSelection: true });
    for (const block of this.blocks) {
      const inside = spans.filter((span) => span.start < block.end && block.start < span.end);
      const state = JSON.stringify(inside.map((span) => [span.start, span.end, span.type, span.state, span.key === this.current]));
      if (state === block.state) continue;
      block.state = state;
      block.element.replaceChildren(...this.#build(block, inside));
    }
  }

  #build(block, spans) {
    const borders = spans.flatMap((span) => [Math.max(span.start, block.start), Math.min(span.end, block.end)]);
    const cuts = [...new Set([block.start, block.end, ...borders])].sort((a, b) => a - b);
    return cuts.slice(0, -1).map((start, index) => {
      const end = cuts[index + 1];
      const covering = spans.filter((span) => span.start < end && start < span.end);
      const text = this.text.slice(start, end);
      return covering.length ? this.#buildMark(text, covering) : text;
    });
  }

  #buildMark(text, covering) {
    const shortest = covering.reduce((a, b) => (b.end - b.start < a.end - a.start ? b : a));
    const item = covering.filter((span) => !span.isSelection).sort((a, b) => a.end - a.start - (b.end - b.start))[0];
    const classes = [item && `${item.state} ${this.colours.classOf(item.type)}`];
    if (covering.length > 1 && !shortest.isSelection) classes.push("nested");
    if (covering.some((span) => span.isSelection)) classes.push("selection");
    if (covering.some((span) => span.key && span.key === this.current)) classes.push("current");
    const keys = covering.map((span) => `${span.start}-${span.end}`).join(" ");
    return h("mark", { class: classes.filter(Boolean).join(" "), "data-key": item?.key, "data-keys": keys, title: item?.type }, text);
  }

  #pick(event, onpick) {
    const selected = document.getSelection();
    if (!selected.isCollapsed) return;
    const { key } = event.target.dataset;
    if (key) onpick(key);
    else if (this.element.contains(selected.anchorNode)) this.selection.place(this.#toOffset(selected.anchorNode, selected.anchorOffset));
  }

  #takeMouseSelection() {
    const selected = document.getSelection();
    if (selected.isCollapsed || !this.element.contains(selected.anchorNode)) return;
    const range = selected.getRangeAt(0);
    const [start, end] = [
      this.#toOffset(range.startContainer, range.startOffset),
      this.#toOffset(range.endContainer, range.endOffset),
    ];
    selected.removeAllRanges();
    this.selection.select(start, end);
    this.selection.mark();
  }

  /** Return the offset of a place in the document: what precedes it in its block is counted. */
  #toOffset(node, offset) {
    const block = (node.nodeType === Node.TEXT_NODE ? node.parentElement : node).closest(".block");
    if (!block) return (node === this.element && this.blocks[offset]?.start) ?? this.text.length;
    const before = document.createRange();
    before.setStart(block, 0);
    before.setEnd(node, offset);
    const start = Number(block.dataset.start);
    return this.text.toOffset(this.text.toUnit(start) + before.toString().length);
  }

  #findVisible() {
    const { top } = this.element.getBoundingClientRect();
    const block = this.blocks.find((each) => each.element.getBoundingClientRect().bottom > top) ?? this.blocks[0];
    return block.start;
  }

  #revealSelection() {
    this.element.querySelector("mark.selection")?.scrollIntoView({ block: "nearest" });
  }

  close() {
    document.removeEventListener("pointerup", this.takeSelection);
  }
}

/** Return [start, end] of blocks, in code units, that end with a line, or after twice their length. */
function splitBlocks(string) {
  const blocks = [];
  for (let start = 0; start < string.length; ) {
    const line = string.indexOf("\n", start + BLOCK);
    let end = line < 0 || line > start + 2 * BLOCK ? Math.min(start + 2 * BLOCK, string.length) : line + 1;
    if (/[\ud800-\udbff]/.test(string[end - 1]) && end < string.length) end += 1;
    blocks.push([start, end]);
    start = end;
  }
  return blocks;
}
