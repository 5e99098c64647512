/** What is selected in a contract, by mouse or with the arrow keys; always whole words. */

/**
 * The selection of a surface: `anchor` and `focus` are token indices. Events: `move` when it changes, `mark` when the
 * reviewer is ready to mark it: after the mouse button is released, or with Enter.
 */
export class Selection extends EventTarget {
  constructor(text) {
    super();
    this.text = text;
    this.clear();
  }

  /** Return the [start, end] of what is selected; null if nothing is. */
  get range() {
    if (this.anchor === null) return null;
    const [first, last] = [this.anchor, this.focus].sort((a, b) => a - b);
    return [this.text.tokens[first][0], this.text.tokens[last][1]];
  }

  clear() {
    this.anchor = this.focus = this.from = null;
    this.dispatchEvent(new Event("move"));
  }

  /** Select nothing, and let the arrow keys start at an offset. */
  place(offset) {
    this.clear();
    this.from = offset;
  }

  /** Select the words that contain what is between two offsets. */
  select(start, end) {
    const range = this.text.snap(Math.min(start, end), Math.max(start, end));
    if (!range) return this.clear();
    this.anchor = this.text.findToken(range[0]);
    this.focus = this.text.findToken(range[1] - 1);
    this.dispatchEvent(new Event("move"));
  }

  mark() {
    if (this.range) this.dispatchEvent(new Event("mark"));
  }

  /** Handle a key that was pressed in the contract; `visible` is an offset to start from. */
  handleKey(event, visible) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -12, ArrowDown: 12 }[event.key];
    if (event.key === "Enter") this.mark();
    else if (event.key === "Escape") this.clear();
    else if (step && !event.ctrlKey && !event.altKey && !event.metaKey) this.#step(step, event.shiftKey, visible);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #step(step, isExtending, visible) {
    const { tokens } = this.text;
    if (!tokens.length) return;
    const from = this.focus ?? this.text.findToken(this.from ?? visible) - step;
    this.focus = Math.max(0, Math.min(tokens.length - 1, from + step));
    if (!isExtending || this.anchor === null) this.anchor = this.focus;
    this.dispatchEvent(new Event("move"));
  }
}
