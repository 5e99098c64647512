/** The view of all contracts: uploading, and the list that says which to review next. */

import { request, upload } from "./api.js";
import { announce, buildHead, button, h } from "./elements.js";
import { formatDate, formatNumber, t, translate } from "./language.js";
import { describe, guarded } from "./problems.js";

const PAGE = 50;
const MOST = 200; // of one answer
const AT_ONCE = 2; // uploads
const ORDERS = { uncertain: "orderUncertain", newest: "orderNewest", name: "orderName" };
const STATES = ["new", "waiting", "reviewed", "changed", "set_aside"];
const CHOSEN = "contract-feedback-list";
const uploads = h("ul", { class: "uploads", "aria-label": t("uploads"), hidden: true }); // go on while a contract is open

/** Show the contracts in `place`; return a function that ends it. */
export async function showContracts(place, _, scopes) {
  const view = new ContractsView(scopes);
  place.replaceChildren(view.element);
  await view.load();
  const look = () => setTimeout(guarded(() => view.loadAgain()), 300); // the click that brings the window back comes first
  window.addEventListener("focus", look);
  return () => window.removeEventListener("focus", look);
}

class ContractsView {
  constructor(scopes) {
    this.chosen = { order: "uncertain", review: "", search: "", ...JSON.parse(sessionStorage.getItem(CHOSEN) ?? "{}") };
    this.rows = h("tbody");
    this.count = h("p", { class: "about", role: "status" });
    this.more = button(t("more"), guarded(() => this.#fetch(this.rows.children.length, PAGE)), { kind: "quiet" });
    this.element = h(
      "div",
      { class: "contracts" },
      h("h1", {}, t("contracts")),
      scopes.includes("annotate") && this.#buildUploads(),
      this.#buildChoices(),
      this.count,
      h("table", {}, buildHead(t("name"), t("state"), [t("toCheck")], [t("pages")], t("date")), this.rows),
      this.more,
    );
  }

  load() {
    return this.#fetch(0, PAGE);
  }

  /** Show what has changed meanwhile, unless that would take away what the reviewer looks at. */
  async loadAgain() {
    const shown = this.rows.children.length;
    if (shown <= MOST && this.element.isConnected && !this.rows.contains(document.activeElement)) {
      await this.#fetch(0, Math.max(PAGE, shown));
    }
  }

  #buildChoices() {
    const choose = (name) => guarded((event) => {
      this.chosen[name] = event.target.value;
      sessionStorage.setItem(CHOSEN, JSON.stringify(this.chosen));
      return this.load();
    });
    const buildSelect = (name, label, options) =>
      h("label", {}, label, h("select", { onchange: choose(name) }, options.map(([value, text]) =>
        h("option", { value, selected: value === this.chosen[name] }, text))));
    const states = [["", t("all")], ...STATES.map((state) => [state, t(`state_${state}`)])];
    const orders = Object.entries(ORDERS).map(([value, name]) => [value, t(name)]);
    const search = h("input", { type: "search", value: this.chosen.search, maxlength: 200, onchange: choose("search") });
    return h(
      "div",
      { class: "choices", role: "search" },
      h("label", {}, t("search"), search),
      buildSelect("order", t("order"), orders),
      buildSelect("review", t("show"), states),
    );
  }

  async #fetch(offset, limit) {
    const chosen = Object.entries(this.chosen).filter(([, value]) => value);
    const asked = (this.asked = {});
    const page = await request(`documents?${new URLSearchParams([...chosen, ["offset", offset], ["limit", limit]])}`);
    if (asked !== this.asked) return; // asked for again, or otherwise
    const rows = page.items.map(buildRow);
    if (offset) this.rows.append(...rows);
    else this.rows.replaceChildren(...rows);
    this.count.textContent = page.total ? t("countOfContracts", { count: page.total }) : t("noContracts");
    this.more.hidden = this.rows.children.length >= page.total;
  }

  #buildUploads() {
    const input = h("input", {
      type: "file",
      multiple: true,
      accept: ".pdf,.txt,.md,application/pdf,text/plain",
      id: "files",
      class: "for-screen-readers",
      onchange: () => {
        this.#upload([...input.files]);
        input.value = "";
      },
    });
    const zone = h("div", { class: "drop" }, t("drop"), " ", input, h("label", { for: "files", class: "button" }, t("chooseFiles")));
    const over = (isOver) => (event) => {
      event.preventDefault();
      zone.classList.toggle("over", isOver);
    };
    zone.addEventListener("dragover", over(true));
    zone.addEventListener("dragleave", over(false));
    zone.addEventListener("drop", (event) => {
      over(false)(event);
      this.#upload([...event.dataTransfer.files]);
    });
    return h("section", { "aria-label": t("uploads") }, zone, uploads);
  }

  /** Upload files, some at once, each with its progress and, if it is refused, the reason. */
  async #upload(files) {
    uploads.hidden = false;
    const waiting = files.map((file) => [file, addUpload(file)]);
    const work = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) await uploadOne(...next);
    };
    window.addEventListener("beforeunload", warn);
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    window.removeEventListener("beforeunload", warn);
    announce(t("uploaded"));
    if (this.element.isConnected) await guarded(() => this.load())();
  }
}

const warn = (event) => event.preventDefault(); // files that wait would not be uploaded

function addUpload(file) {
  const progress = h("progress", { max: 1, value: 0, "aria-label": file.name });
  const state = h("span", { class: "about" }, t("phase_waiting"));
  const name = h("span", { class: "name" }, file.name);
  const row = h("li", {}, name, progress, state);
  uploads.append(row);
  return { row, name, progress, state };
}

async function uploadOne(file, { row, name, progress, state }) {
  state.textContent = t("uploading");
  try {
    const document = await upload(file, (share) => {
      progress.value = share;
      if (share === 1) state.textContent = t("reading");
    });
    name.replaceChildren(h("a", { href: `#/documents/${document.id}` }, file.name));
    state.textContent = t("uploaded");
    row.className = "done";
  } catch (error) {
    state.textContent = error.status === 0 ? describe(error) : translate(error.message)[0];
    row.className = "refused";
  }
  progress.hidden = true;
}

function buildRow(document) {
  const { id, filename, review, uncertain_values: uncertain, page_count: pages, created_at: created } = document;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, h("a", { href: `#/documents/${id}` }, filename)),
    h("td", {}, h("span", { class: `state ${review}` }, t(`state_${review}`))),
    h("td", { class: "number" }, uncertain === null ? "–" : formatNumber(uncertain)),
    h("td", { class: "number" }, pages),
    h("td", {}, formatDate(created)),
  );
}
