/** The review of one document: what the model suggests, what people decided, and how decisions are stored and undone. */

import { ApiError, request } from "./api.js";

const FIELDS = ["type", "start", "end", "status"];
const RESTORED = [...FIELDS, "reviewer", "notes"]; // by undo
/** Return what names an entity of a document: its type and extent. */
export const keyOf = ({ type, start, end }) => JSON.stringify([type, start, end]);

/**
 * Each decision is stored at once as an annotation, so a reload loses nothing but the steps that undo takes back.
 *
 * A slot holds one annotation as it is stored, null before it is made and after it is removed; undo refers to slots,
 * since an annotation that is made again has a new id. A slot's `ours` is the revision that we stored last, null for a
 * removal. `resolve(theirs, mine)` is asked when somebody else has changed an annotation since the reviewer saw it, and
 * tells whether ours is kept.
 */
export class Review extends EventTarget {
  constructor(documentId, text, resolve) {
    super();
    this.documentId = documentId;
    this.text = text;
    this.resolve = resolve;
    this.entities = [];
    this.slots = new Map();
    this.steps = [];
    this.work = Promise.resolve(); // what was begun last; it never fails
  }

  /** Do one thing after the other: an answer that was read before a change would undo it on the page. */
  #inTurn(action) {
    const done = this.work.then(action);
    this.work = done.catch(() => {});
    return done;
  }

  /** Read the annotations again, and say so if others have changed any. */
  refresh() {
    this.refreshing ??= this.#inTurn(() => this.#refresh()).finally(() => (this.refreshing = null));
    return this.refreshing;
  }

  async #refresh() {
    const stored = await request(`documents/${this.documentId}/annotations`);
    const byId = new Map(stored.map((annotation) => [annotation.id, annotation]));
    let changed = false;
    for (const [id, slot] of this.slots) {
      if (!byId.has(id)) {
        slot.annotation = null;
        this.slots.delete(id);
        changed = true;
      }
    }
    for (const annotation of stored) {
      const slot = this.slots.get(annotation.id);
      changed ||= slot?.annotation?.revision !== annotation.revision;
      this.#store(slot ?? {}, annotation);
    }
    if (changed) this.#tell();
  }

  /** Read what the model suggests, by a version or a newer one if it is given; return the answer. */
  async suggest(version) {
    const query = version ? `?min_version=${version}` : "";
    const answer = await request(`documents/${this.documentId}/entities${query}`);
    this.entities = answer.entities;
    this.#tell();
    return answer;
  }

  /** What is on the page, in reading order: `state` is suggested, approved, draft or rejected. */
  get items() {
    const items = new Map();
    for (const slot of this.slots.values()) {
      const { type, value, start, end, status, reviewer } = slot.annotation;
      items.set(keyOf(slot.annotation), { type, value, start, end, reviewer, state: status, slot, revision: slot.annotation.revision });
    }
    const kept = [...items.values()].filter((item) => item.state !== "rejected");
    for (const entity of this.entities) {
      const known = items.get(keyOf(entity));
      const isReplaced = (item) => item.type === entity.type && item.start < entity.end && entity.start < item.end;
      if (known) known.confidence = entity.confidence;
      else if (!kept.some(isReplaced)) items.set(keyOf(entity), { ...entity, state: "suggested", slot: { annotation: null } });
    }
    const inOrder = (a, b) => a.start - b.start || a.end - b.end || a.type.localeCompare(b.type);
    return [...items.values()].map((item) => ({ ...item, key: keyOf(item) })).sort(inOrder);
  }

  /** What is stored, as a request for feedback has it. */
  get stored() {
    return [...this.slots.values()].map(({ annotation }) => this.#describe(pick(annotation, RESTORED)));
  }

  get suggested() {
    return this.items.filter((item) => item.state === "suggested");
  }

  accept(...items) {
    return this.#decide(items.map((item) => [item, mark(item, "approved")]));
  }

  /** Reject what the model found; what only a person marked is removed. */
  reject(...items) {
    const found = new Set(this.entities.map(keyOf));
    return this.#decide(items.map((item) => [item, found.has(item.key) ? mark(item, "rejected") : null]));
  }

  changeType(item, type) {
    return this.#replace(item, mark({ ...item, type }, "approved"));
  }

  changeExtent(item, start, end) {
    return this.#replace(item, mark({ ...item, start, end }, "approved"));
  }

  add(type, start, end) {
    const known = this.items.find((item) => item.key === keyOf({ type, start, end }));
    return this.#decide([[known ?? { type, start, end, slot: { annotation: null } }, mark({ type, start, end }, "approved")]]);
  }

  get canUndo() {
    return this.steps.length > 0;
  }

  /** Take the last step back; what others have changed since is asked for. Return whether there was a step. */
  undo() {
    return this.#inTurn(async () => {
      const step = this.steps.at(-1);
      if (!step) return false;
      try {
        while (step.length) {
          const [slot, before] = step.at(-1);
          if (await this.#mayChange(slot, slot.ours, before)) await this.#change(slot, before, []);
          step.pop();
        }
        this.steps.pop();
      } finally {
        this.#tell();
      }
      return true;
    });
  }

  /** Mark otherwise; what the model found in this place stays rejected, also after a reload. */
  #replace(item, fields) {
    const isFound = this.entities.some((entity) => keyOf(entity) === keyOf(item));
    const isReplaced = item.type === fields.type && item.start < fields.end && fields.start < item.end; // hides it
    const found = { ...item, slot: { annotation: null }, revision: undefined };
    const rejected = isFound && !isReplaced ? [[found, mark(item, "rejected")]] : [];
    return this.#decide([[item, fields], ...rejected]);
  }

  #findSlot(fields) {
    const found = [...this.slots.values()].find((slot) => keyOf(slot.annotation) === keyOf(fields));
    return found ?? { annotation: null };
  }

  /** Store what was decided, as one step that can be undone; what was stored before an error can be undone, too. */
  #decide(decisions) {
    return this.#inTurn(async () => {
      const step = [];
      try {
        for (const [item, fields] of decisions) {
          const isKnown = item.slot.annotation || "ours" in item.slot;
          const slot = isKnown ? item.slot : this.#findSlot(item);
          if (slot.annotation && fields && isSame(slot.annotation, fields)) continue;
          if (await this.#mayChange(slot, item.revision ?? null, fields)) await this.#change(slot, fields, step);
        }
      } finally {
        if (step.length) this.steps.push(step);
        this.#tell();
      }
    });
  }

  /** Tell whether a slot may be changed that had a revision when the reviewer decided: others may have changed it since. */
  async #mayChange(slot, seen, fields) {
    const revision = slot.annotation?.revision ?? null;
    if (revision === seen || revision === slot.ours || (!slot.annotation && !fields)) return true;
    return Boolean(await this.resolve(slot.annotation, this.#describeMine(slot, fields)));
  }

  #describeMine(slot, fields) {
    return fields ? this.#describe(fields) : { ...slot.annotation };
  }

  /** Make, change or remove the annotation of a slot; what was before is added to `step`. */
  async #change(slot, fields, step) {
    const { annotation } = slot;
    if (!annotation && !fields) return;
    const before = annotation && pick(annotation, RESTORED);
    try {
      if (!fields) {
        await request(`annotations/${annotation.id}`, { method: "DELETE", headers: { "If-Match": `"${annotation.revision}"` } });
        this.slots.delete(annotation.id);
        slot.annotation = null;
      } else if (annotation) {
        const headers = { "If-Match": `"${annotation.revision}"` };
        const body = { notes: annotation.notes, ...this.#describe(fields) };
        this.#store(slot, await request(`annotations/${annotation.id}`, { method: "PUT", headers, body }));
      } else {
        const path = `documents/${this.documentId}/annotations`;
        this.#store(slot, await request(path, { method: "POST", body: this.#describe(fields) }));
      }
    } catch (error) {
      return this.#settle(slot, fields, step, error);
    }
    slot.ours = slot.annotation?.revision ?? null;
    step.push([slot, before]);
  }

  /** Settle a conflict: with somebody who changed or removed the annotation, or marked the same. */
  async #settle(slot, fields, step, error) {
    if (!(error instanceof ApiError) || ![404, 409, 412].includes(error.status)) throw error;
    const mine = this.#describeMine(slot, fields);
    await this.#refresh();
    if (error.status === 409) {
      const same = fields && this.#findSlot(fields);
      if (!same?.annotation || same === slot) throw error;
      const isDecided = same.annotation.status === fields.status;
      if (!isDecided && same.ours !== same.annotation.revision && !(await this.resolve(same.annotation, mine))) return;
      await this.#change(slot, null, step); // both mark the same now: one remains
      if (!isDecided) await this.#change(same, fields, step);
      return;
    }
    if (!slot.annotation && !fields) return; // both removed it
    if (await this.resolve(slot.annotation, mine)) await this.#change(slot, fields, step);
  }

  #describe(fields) {
    return { ...fields, value: this.text.slice(fields.start, fields.end) };
  }

  #store(slot, annotation) {
    slot.annotation = annotation;
    this.slots.set(annotation.id, slot);
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

const mark = ({ type, start, end }, status) => ({ type, start, end, status });
const isSame = (annotation, fields) => FIELDS.every((name) => annotation[name] === fields[name]);

function pick(fields, names) {
  return Object.fromEntries(names.map((name) => [name, fields[name]]));
}
