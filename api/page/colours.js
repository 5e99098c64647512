/** A colour for each entity type: the style sheet has twelve. */

const COUNT = 12;

export class Colours {
  constructor(types) {
    this.types = [...types];
  }

  classOf(type) {
    if (!this.types.includes(type)) this.types.push(type);
    return `colour-${this.types.indexOf(type) % COUNT}`;
  }
}
