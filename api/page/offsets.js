/** Text by code points, as the API counts; JavaScript's strings count UTF-16 code units. */

const TOKEN = /[\p{L}\p{M}]+|\p{N}+|\S/gu; // as the model's words: runs of letters, runs of digits, single marks

export class Text {
  constructor(string) {
    this.string = string;
    this.hasPairs = /[\u{10000}-\u{10ffff}]/u.test(string);
    if (this.hasPairs) this.#index();
    this.length = this.hasPairs ? this.units.length - 1 : string.length;
  }

  #index() {
    this.units = [];
    this.points = new Uint32Array(this.string.length + 1);
    let unit = 0;
    for (const character of this.string) {
      this.points.fill(this.units.length, unit, unit + character.length);
      this.units.push(unit);
      unit += character.length;
    }
    this.points[unit] = this.units.length;
    this.units.push(unit);
  }

  toUnit(offset) {
    return this.hasPairs ? this.units[offset] : offset;
  }

  toOffset(unit) {
    return this.hasPairs ? this.points[unit] : unit;
  }

  slice(start, end) {
    return this.string.slice(this.toUnit(start), this.toUnit(end));
  }

  /** The [start, end] of each token, in order. */
  get tokens() {
    this.found ??= Array.from(this.string.matchAll(TOKEN), (match) => [
      this.toOffset(match.index),
      this.toOffset(match.index + match[0].length),
    ]);
    return this.found;
  }

  /** Return the index of the first token that ends after an offset. */
  findToken(offset) {
    let low = 0;
    let high = this.tokens.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tokens[middle][1] <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Return the smallest range of whole tokens that contains what is marked from `start` to `end`; null if blank. */
  snap(start, end) {
    const first = this.tokens[this.findToken(start)];
    const last = this.tokens[Math.min(this.findToken(end - 1), this.tokens.length - 1)];
    if (!first || first[0] >= end) return null;
    return [first[0], last[0] < end ? last[1] : this.tokens[this.findToken(end - 1) - 1][1]];
  }
}
