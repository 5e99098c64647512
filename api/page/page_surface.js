/** The pages of a PDF as they look, with highlights over them, where words are selected. */

import { request, requestBlob } from "./api.js";
import { h } from "./elements.js";
import { t } from "./language.js";
import { Selection } from "./selection.js";

const AGAIN_SECONDS = 3;
const NEAR = "150% 0px"; // pages are fetched one and a half screens before they are seen

export class PageSurface {
  constructor(documentId, pages, text, colours, onpick) {
    this.documentId = documentId;
    this.colours = colours;
    this.onpick = onpick;
    this.items = [];
    this.selection = new Selection(text);
    this.selection.addEventListener("move", () => {
      this.pages.forEach((page) => this.#draw(page));
      this.#revealSelection();
    });
    this.pages = pages.map((page, index) => this.#build(page, index + 1, pages.length));
    this.element = h(
      "div",
      {
        class: "surface pages",
        tabindex: 0,
        role: "application",
        "aria-label": t("surface"),
        onkeydown: (event) => this.selection.handleKey(event, this.#findVisible().start),
        onpointerdown: (event) => this.#press(event),
        onpointermove: (event) => this.#drag(event),
        onpointerup: () => this.#release(),
        ondblclick: (event) => this.#selectWord(event),
      },
      this.pages.map((page) => page.element),
    );
    this.observer = new IntersectionObserver((entries) => this.#follow(entries), { root: this.element, rootMargin: NEAR });
    this.pages.forEach((page) => this.observer.observe(page.element));
  }

  show(items, current) {
    this.items = items;
    this.current = current;
    this.pages.forEach((page) => this.#draw(page));
  }

  reveal(item) {
    const page = this.#findPage(item.start);
    const box = page.words && findBoxes(page.words, item.start, item.end)[0];
    if (!box) return page.element.scrollIntoView({ block: "start" });
    const shown = page.overlay.getBoundingClientRect();
    const top = shown.top + (box[1] / page.height) * shown.height;
    const seen = this.element.getBoundingClientRect();
    if (top < seen.top + 20 || top > seen.bottom - 40) this.element.scrollBy({ top: top - (seen.top + seen.height / 2) });
  }

  close() {
    this.observer.disconnect();
    for (const page of this.pages) {
      page.request?.abort();
      page.request = null;
      if (page.image.src) URL.revokeObjectURL(page.image.src);
    }
  }

  #build(page, number, count) {
    const image = h("img", { alt: t("page", { number, count }), draggable: "false" });
    const overlay = h("div", { class: "overlay" });
    const element = h("div", { class: "page", "data-number": number }, image, overlay);
    element.style.aspectRatio = `${page.width} / ${page.height}`;
    return { ...page, number, element, image, overlay };
  }

  #findPage(offset) {
    return this.pages.find((page) => offset < page.end) ?? this.pages.at(-1);
  }

  #follow(entries) {
    for (const entry of entries) {
      const page = this.pages[entry.target.dataset.number - 1];
      if (entry.isIntersecting) this.#load(page);
      else this.#unload(page);
    }
  }

  async #load(page) {
    if (page.request) return;
    page.request = new AbortController();
    page.element.classList.remove("failed");
    const path = `documents/${this.documentId}/pages/${page.number}`;
    const width = Math.min(2000, Math.ceil((page.element.clientWidth * devicePixelRatio) / 200) * 200);
    const words = request(`${path}/words`, page.request).then((answer) => {
      page.words = answer.words;
      page.element.classList.add("selectable");
      this.#draw(page);
    });
    const image = requestBlob(`${path}/image?width=${width}`, page.request.signal).then((blob) => {
      page.image.src = URL.createObjectURL(blob);
      page.element.classList.add("loaded");
    });
    for (const part of [words, image]) {
      part.catch((error) => error.name !== "AbortError" && this.#fail(page, error));
    }
  }

  /** Say that a page cannot be shown; if the server is busy, try again as long as the page is near. */
  #fail(page, error) {
    const asked = page.request;
    if (![0, 429, 503].includes(error.status)) {
      page.element.classList.add("failed");
      page.element.dataset.problem = t("pageFailed");
      return;
    }
    setTimeout(() => {
      if (!asked || page.request !== asked) return;
      this.#unload(page);
      this.#load(page);
    }, AGAIN_SECONDS * 1000);
  }

  /** Forget a page that is far away: the images of 300 pages would fill the memory. */
  #unload(page) {
    if (!page.request) return;
    page.request.abort();
    page.request = page.words = null;
    page.overlay.replaceChildren();
    page.element.classList.remove("loaded", "selectable", "failed");
    if (page.image.src) URL.revokeObjectURL(page.image.src);
    page.image.removeAttribute("src");
  }

  #draw(page) {
    if (!page.words) return;
    const range = this.selection.range;
    const spans = this.items.filter((item) => item.start < page.end && page.start < item.end);
    if (range && range[0] < page.end && page.start < range[1]) spans.push({ start: range[0], end: range[1], isSelection: true });
    page.overlay.replaceChildren(...spans.flatMap((span) => this.#buildHighlight(page, span)));
  }

  #buildHighlight(page, span) {
    const classes = span.isSelection ? "selection" : `${span.state} ${this.colours.classOf(span.type)}`;
    const current = span.key && span.key === this.current ? " current" : "";
    return findBoxes(page.words, span.start, span.end).map(([left, top, right, bottom]) => {
      const element = h("div", { class: `highlight ${classes}${current}`, "data-key": span.key, title: span.type });
      element.style.left = `${(100 * left) / page.width}%`;
      element.style.top = `${(100 * top) / page.height}%`;
      element.style.width = `${(100 * (right - left)) / page.width}%`;
      element.style.height = `${(100 * (bottom - top)) / page.height}%`;
      return element;
    });
  }

  /** Return the word nearest to the pointer, of the page under it. */
  #findWord(event) {
    const element = document.elementFromPoint(event.clientX, event.clientY)?.closest(".page");
    const page = element && this.pages[element.dataset.number - 1];
    if (!page?.words?.length) return null;
    const shown = page.overlay.getBoundingClientRect();
    const x = ((event.clientX - shown.left) / shown.width) * page.width;
    const y = ((event.clientY - shown.top) / shown.height) * page.height;
    const distance = ({ box: [left, top, right, bottom] }) =>
      Math.max(left - x, 0, x - right) + 3 * Math.max(top - y, 0, y - bottom); // in the line rather than above it
    return page.words.reduce((best, word) => (distance(word) < distance(best) ? word : best));
  }

  #press(event) {
    if (event.button !== 0) return;
    this.pressed = { key: event.target.dataset.key, word: this.#findWord(event), x: event.clientX, y: event.clientY };
  }

  #drag(event) {
    const { pressed } = this;
    if (!pressed?.word || !(event.buttons & 1)) return;
    if (!pressed.isDragging && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 4) return;
    if (!pressed.isDragging) this.element.setPointerCapture(event.pointerId);
    pressed.isDragging = true;
    const word = this.#findWord(event);
    if (word) this.selection.select(Math.min(pressed.word.start, word.start), Math.max(pressed.word.end, word.end));
  }

  #release() {
    const { pressed } = this;
    this.pressed = null;
    if (pressed?.isDragging) this.selection.mark();
    else if (pressed?.key) this.onpick(pressed.key);
    else if (pressed?.word) this.selection.place(pressed.word.start);
  }

  #selectWord(event) {
    const word = this.#findWord(event);
    if (word) this.selection.select(word.start, word.end);
    this.selection.mark();
  }

  #findVisible() {
    const { top } = this.element.getBoundingClientRect();
    return this.pages.find((page) => page.element.getBoundingClientRect().bottom > top + 20) ?? this.pages[0];
  }

  #revealSelection() {
    const { range } = this.selection;
    if (range && !this.pressed) this.#findPage(range[0]).overlay.querySelector(".selection")?.scrollIntoView({ block: "nearest" });
  }
}

/** Return the boxes of what is between two offsets, one for each line. */
function findBoxes(words, start, end) {
  const lines = [];
  for (const word of words) {
    if (word.end <= start || word.start >= end) continue;
    const [left, top, right, bottom] = word.box;
    const line = lines.at(-1);
    if (line && top < line[3] && bottom > line[1] && left >= line[0]) {
      lines[lines.length - 1] = [line[0], Math.min(top, line[1]), Math.max(right, line[2]), Math.max(bottom, line[3])];
    } else {
      lines.push([left, top, right, bottom]);
    }
  }
  return lines;
}
