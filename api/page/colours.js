/** A colour for each entity type: the style sheet has twelve. A type keeps its colour and its place in this browser. */

const COUNT = 12;
const STORED = "contract-feedback-types";

export class Colours {
  constructor(types) {
    this.types = JSON.parse(localStorage.getItem(STORED) ?? "[]");
    types.toSorted().forEach((type) => this.#add(type));
  }

  classOf(type) {
    this.#add(type);
    return `colour-${this.types.indexOf(type) % COUNT}`;
  }

  /** Return types in the order in which this browser saw them first. */
  sort(types) {
    return types.toSorted((a, b) => this.types.indexOf(a) - this.types.indexOf(b));
  }

  #add(type) {
    if (this.types.includes(type)) return;
    this.types.push(type);
    localStorage.setItem(STORED, JSON.stringify(this.types));
  }
}
