/** The view of one contract: its pages or text, its entities, and teaching. */

import { request, requestText } from "./api.js";
import { askWhoseToKeep } from "./conflict.js";
import { announce, button, h, shorten } from "./elements.js";
import { buildEntityList } from "./entity_list.js";
import { Colours } from "./colours.js";
import { t } from "./language.js";
import { Text } from "./offsets.js";
import { PageSurface } from "./page_surface.js";
import { Review, keyOf } from "./review.js";
import { guarded, quote } from "./problems.js";
import { showShortcuts } from "./shortcuts.js";
import { openNext, submit } from "./submission.js";
import { TeachPanel } from "./teach_panel.js";
import { TextSurface } from "./text_surface.js";
import { buildTypeChooser } from "./type_chooser.js";

const OTHERS_SECONDS = 5; // between two looks at what others have changed

/** Show a contract in `place`; return a function that ends it. */
export async function showContract(place, documentId, scopes) {
  const path = `documents/${documentId}`;
  const [description, { pages }, string, types] = await Promise.all([
    request(path),
    request(`${path}/pages`),
    requestText(`${path}/text`),
    request("types"),
  ]);
  const view = new ContractView(description, pages, new Text(string), types.map((each) => each.type), scopes);
  place.replaceChildren(view.element);
  try {
    await view.open();
  } catch (error) {
    view.close();
    throw error;
  }
  return () => view.close();
}

class ContractView {
  constructor(description, pages, text, types, scopes) {
    this.description = description;
    this.pages = pages;
    this.text = text;
    this.mayAnnotate = scopes.includes("annotate");
    this.mayTeach = scopes.includes("train");
    this.colours = new Colours(types);
    this.types = this.colours.sort(types);
    this.review = new Review(description.id, text, askWhoseToKeep);
    this.review.addEventListener("change", () => this.#draw());
    this.teaching = new TeachPanel(description.id, guarded((job) => this.#showLearned(job)));
    this.surfacePlace = h("div", { class: "place" });
    this.chooserPlace = h("div", { class: "choosing" });
    this.list = h("div", { class: "entities" });
    this.bar = h("div", { class: "bar" });
    this.hint = h("div", { class: "hint", hidden: true });
    this.element = h(
      "div",
      { class: "contract" },
      this.#buildHeading(),
      this.surfacePlace,
      h(
        "aside",
        { "aria-label": t("entities") },
        this.chooserPlace,
        !this.mayAnnotate && h("p", { class: "hint" }, t("readOnly")),
        this.hint,
        this.list,
        this.teaching.element,
        this.bar,
      ),
    );
    this.handleKey = (event) => this.#handleKey(event);
    this.look = guarded(async () => document.visibilityState === "visible" && this.review.refresh());
  }

  async open() {
    this.#showSurface(this.pages.length > 0);
    document.addEventListener("keydown", this.handleKey);
    window.addEventListener("focus", this.look);
    this.timer = setInterval(this.look, OTHERS_SECONDS * 1000);
    await Promise.all([this.review.refresh(), guarded(() => this.#suggest())(), this.#findTeaching()]);
    this.#draw();
  }

  close() {
    this.isClosed = true;
    document.removeEventListener("keydown", this.handleKey);
    window.removeEventListener("focus", this.look);
    clearInterval(this.timer);
    this.teaching.close();
    this.surface.close();
  }

  #buildHeading() {
    const { filename, page_count: count } = this.description;
    const choose = (isPages) => () => this.#showSurface(isPages);
    this.toggles = this.pages.length
      ? [button(t("asPages"), choose(true), { kind: "quiet" }), button(t("asText"), choose(false), { kind: "quiet" })]
      : [];
    return h(
      "div",
      { class: "heading" },
      h("a", { href: "#/documents", class: "back" }, `← ${t("contracts")}`),
      h("h1", {}, filename),
      this.pages.length > 0 && h("span", { class: "about" }, t("countOfPages", { count })),
      h("div", { class: "toggles", role: "group", "aria-label": t("appearance") }, this.toggles),
      button(t("shortcuts"), showShortcuts, { kind: "quiet", shortcut: "?" }),
    );
  }

  /** Show the pages as they look, or the text; what was shown first on the screen is shown again. */
  #showSurface(isPages) {
    const pick = (key) => this.#pick(key);
    this.surface?.close();
    this.surface = isPages
      ? new PageSurface(this.description.id, this.pages, this.text, this.colours, pick)
      : new TextSurface(this.text, this.colours, pick);
    if (this.mayAnnotate) this.surface.selection.addEventListener("mark", () => this.#chooseType());
    this.surface.selection.addEventListener("move", () => this.#announceSelection());
    this.surfacePlace.replaceChildren(this.surface.element);
    this.toggles.forEach((toggle, index) => toggle.setAttribute("aria-pressed", String(isPages === (index === 0))));
    this.#draw();
  }

  #announceSelection() {
    const { range } = this.surface.selection;
    if (range) announce(t("selected", { value: this.text.slice(...range) }));
  }

  /** Ask for suggestions, and again while there is no answer: a long document is read in the background. */
  async #suggest(minVersion) {
    try {
      const { model_version: version, warning } = await this.review.suggest(minVersion);
      this.#showHint(version ? warning && quote(warning) : t("noModelYet"));
      this.isRead = true;
      this.#draw();
    } catch (error) {
      if (this.isClosed) return;
      if (error.status === 409) return this.#suggest(); // somebody has gone back to an earlier version meanwhile
      if (error.status !== 503) throw error;
      this.#showHint(quote(error.message));
      setTimeout(guarded(() => this.isClosed || this.#suggest(minVersion)), 3000);
    }
  }

  /** Show what the version suggests that learned a job, though another process of the API may answer. */
  #showLearned({ live_version: version }) {
    this.#showHint(null);
    return this.#suggest(version);
  }

  #showHint(hint) {
    this.hint.hidden = !hint;
    this.hint.replaceChildren(hint || "");
  }

  /** Go on following feedback on this document that was sent before a reload. */
  async #findTeaching() {
    const { items } = await request(`jobs?document_id=${this.description.id}&limit=1`);
    const [job] = items;
    if (!job) return;
    const isWaiting = ["pending", "running"].includes(job.status);
    if (isWaiting) this.teaching.follow(job.job_id);
    else if (this.description.review === "set_aside") this.teaching.show(await request(`jobs/${job.job_id}`));
  }

  #draw() {
    if (!this.surface) return;
    const { items } = this.review;
    this.surface.show(items.filter((item) => item.state !== "rejected"), this.current);
    const focused = this.list.contains(document.activeElement) && findPlace(document.activeElement);
    const { scrollTop } = this.list;
    this.list.replaceChildren(...buildEntityList(items, this.current, this.colours, this.#actions));
    if (!items.length && this.isRead && this.hint.hidden) this.list.append(h("p", { class: "hint" }, t("nothingFound")));
    this.list.scrollTop = scrollTop;
    if (focused) this.#focusAgain(focused);
    this.#drawBar(items.filter((item) => item.state === "suggested").length);
  }

  /** Keep the focus where it was, though the list was built anew: on the same button, or on its entity. */
  #focusAgain({ key, label }) {
    const item = [...this.list.querySelectorAll("li")].find((each) => each.querySelector(".value").dataset.key === (key ?? this.current));
    const buttons = [...(item?.querySelectorAll("button") ?? [])];
    (buttons.find((each) => findLabel(each) === label) ?? buttons[0])?.focus();
  }

  #drawBar(count) {
    const focused = this.bar.contains(document.activeElement) && document.activeElement.getAttribute("aria-keyshortcuts");
    this.bar.replaceChildren(
      ...[
        button(t("nextContract"), guarded(() => openNext(this.description.id)), { shortcut: "N", kind: "quiet" }),
        this.mayAnnotate && count > 0 && button(t("acceptAll", { count }), guarded(() => this.review.accept(...this.review.suggested)), { shortcut: "⇧A" }),
        this.review.canUndo && button(t("undo"), guarded(() => this.#undo()), { shortcut: "U", kind: "quiet" }),
        this.mayTeach && button(t("teach"), guarded(() => this.#teach()), { kind: "primary", shortcut: "G" }),
      ].filter(Boolean),
    );
    if (focused) (this.bar.querySelector(`[aria-keyshortcuts="${focused}"]`) ?? this.bar.lastChild).focus();
  }

  get #actions() {
    const pick = (key) => this.#pick(key);
    if (!this.mayAnnotate) return { pick };
    const act = (method) => (item) => guarded(() => this.review[method](item))();
    return {
      pick,
      accept: act("accept"),
      reject: (item) => guarded(() => this.#reject(item))(),
      retype: (item) => this.#chooseTypeOf(item),
      extend: (item, edge, step) => guarded(() => this.#extend(item, edge, step))(),
    };
  }

  #pick(key) {
    this.current = key;
    this.#draw();
    const item = this.#currentItem;
    if (!item) return;
    this.surface.reveal(item);
    const shown = [...this.list.querySelectorAll(".value")].find((each) => each.dataset.key === key);
    shown?.scrollIntoView({ block: "nearest" });
    shown?.focus({ preventScroll: true });
  }

  get #currentItem() {
    return this.review.items.find((item) => item.key === this.current);
  }

  /** Pick the entity after or before the current one, in the order of the list. */
  #move(step) {
    const keys = [...this.list.querySelectorAll(".value")].map((each) => each.dataset.key);
    const at = keys.indexOf(this.current);
    const next = keys[at < 0 ? 0 : Math.max(0, Math.min(keys.length - 1, at + step))];
    if (next) this.#pick(next);
  }

  /** Reject an entity, and pick the one after it in the list: it goes to the end, or out of the list. */
  async #reject(item) {
    const keys = [...this.list.querySelectorAll(".value")].map((each) => each.dataset.key);
    const at = keys.indexOf(item.key);
    await this.review.reject(item);
    const next = keys[at + 1] ?? keys[at - 1];
    if (next) this.#pick(next);
  }

  async #extend(picked, edge, step) {
    await this.review.work; // after a click before this one
    const item = this.review.items.find((each) => each.slot === picked.slot) ?? picked;
    const { tokens } = this.text;
    const isStart = edge === "start";
    const token = this.text.findToken(isStart ? item.start : item.end - 1) + step;
    if (!tokens[token]) return;
    const [start, end] = isStart ? [tokens[token][0], item.end] : [item.start, tokens[token][1]];
    if (start >= end) return;
    this.current = keyOf({ ...item, start, end });
    await this.review.changeExtent(item, start, end);
  }

  async #undo() {
    if (await this.review.undo()) announce(t("undone"));
  }

  /** Offer the types for the selected words, or the words as the extent of the current entity. */
  #chooseType() {
    const [start, end] = this.surface.selection.range;
    const item = this.#currentItem;
    const mark = (type) => this.#finishChoosing(type, start, end, () => this.review.add(type, start, end));
    const extend = () => this.#finishChoosing(item.type, start, end, () => this.review.changeExtent(item, start, end));
    const others = item ? [button(t("useAsExtent", { value: shorten(item.value) }), extend, { kind: "quiet" })] : [];
    const title = `${t("markAs")}: “${shorten(this.text.slice(start, end))}”`;
    this.#openChooser(title, mark, others);
  }

  #chooseTypeOf(item) {
    const change = (type) => this.#finishChoosing(type, item.start, item.end, () => this.review.changeType(item, type));
    this.#openChooser(`${t("changeType")}: “${shorten(item.value)}”`, change);
  }

  #openChooser(title, onchoose, others) {
    this.focusedBefore = document.activeElement;
    const chooser = buildTypeChooser(title, this.types, this.colours, onchoose, () => this.#closeChooser(), others);
    this.chooserPlace.replaceChildren(chooser);
  }

  #closeChooser() {
    this.chooserPlace.replaceChildren();
    this.surface.selection.clear();
    const isInList = this.list.contains(this.focusedBefore);
    (isInList ? this.focusedBefore : this.surface.element).focus({ preventScroll: true });
  }

  #finishChoosing(type, start, end, store) {
    this.#closeChooser();
    if (!this.types.includes(type)) this.types = [...this.types, type];
    this.current = keyOf({ type, start, end });
    return guarded(store)();
  }

  async #teach() {
    const submitted = await submit(this.review, this.mayAnnotate);
    if (submitted) this.teaching.follow(submitted.job.job_id, submitted.sent);
  }

  #handleKey(event) {
    const isTyping = event.target.matches("input, textarea, select") || document.querySelector("dialog[open]");
    const name = getKeyName(event);
    const isHeld = event.repeat && !/^(j|k|Arrow\w+)$/.test(name);
    if (isTyping || isHeld || event.altKey) return;
    const item = this.#currentItem;
    const keys = {
      j: () => this.#move(1),
      ArrowDown: () => this.#move(1),
      k: () => this.#move(-1),
      ArrowUp: () => this.#move(-1),
      n: () => openNext(this.description.id),
      "?": showShortcuts,
      ...(this.mayAnnotate && {
        A: () => this.review.accept(...this.review.suggested),
        u: () => this.#undo(),
        a: () => item && this.review.accept(item),
        x: () => item && this.#reject(item),
        t: () => item && this.#chooseTypeOf(item),
      }),
      ...(this.mayTeach && { g: () => this.#teach() }),
    };
    const isUndo = (event.ctrlKey || event.metaKey) && name === "z";
    if ((event.ctrlKey || event.metaKey) && !isUndo) return;
    const action = isUndo ? keys.u : keys[name];
    if (!action) return;
    event.preventDefault();
    guarded(action)();
  }
}

/** Return the key's name; a letter is a capital with Shift alone, whatever Caps Lock says. */
function getKeyName({ key, shiftKey }) {
  if (key.length > 1) return key;
  return shiftKey ? key.toUpperCase() : key.toLowerCase();
}

const findLabel = (element) => element.getAttribute("aria-label")?.split(":")[0] ?? element.className;
const findPlace = (element) => ({ key: element.closest("li")?.querySelector(".value")?.dataset.key, label: findLabel(element) });
