/** The review of one document: what the model suggests, what people decided, and how decisions are stored and undone. */

import { ApiError, request } from "./api.js";

const FIELDS = ["type", "start", "end", "status"];
const keyOf = ({ type, start, end }) => JSON.stringify([type, start, end]);

/**
 * Each decision is stored at once as an annotation, so a reload loses nothing but the steps that undo takes back.
 *
 * A slot holds one annotation as it is stored, null before it is made and after it is removed; undo refers to slots,
 * since an annotation that is made again has a new id. `resolve(slot, fields)` is asked when somebody else has changed
 * an annotation meanwhile, and tells whether ours is kept.
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
  }

  /** Read the annotations again, and say so if others have changed any. */
  async refresh() {
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

  /** Read what the model suggests; return the answer. */
  async suggest() {
    const answer = await request(`documents/${this.documentId}/entities`);
    this.entities = answer.entities;
    this.#tell();
    return answer;
  }

  /** What is on the page, in reading order: `state` is suggested, approved, draft or rejected. */
  get items() {
    const items = new Map();
    for (const slot of this.slots.values()) {
      const { type, value, start, end, status, reviewer } = slot.annotation;
      items.set(keyOf(slot.annotation), { type, value, start, end, reviewer, state: status, slot });
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

  get suggested() {
    return this.items.filter((item) => item.state === "suggested");
  }

  accept(...items) {
    return this.#decide(items.map((item) => [item.slot, { ...item, status: "approved" }]));
  }

  /** Reject what the model found; what only a person marked is removed. */
  reject(...items) {
    const isFound = (item) => this.entities.some((entity) => keyOf(entity) === item.key);
    return this.#decide(items.map((item) => [item.slot, isFound(item) ? { ...item, status: "rejected" } : null]));
  }

  changeType(item, type) {
    return this.#replace(item, { ...item, type });
  }

  changeExtent(item, start, end) {
    return this.#replace(item, { ...item, start, end });
  }

  add(type, start, end) {
    return this.#decide([[this.#findSlot({ type, start, end }), { type, start, end, status: "approved" }]]);
  }

  get canUndo() {
    return this.steps.length > 0;
  }

  async undo() {
    const step = this.steps.pop();
    for (const [slot, before] of step?.toReversed() ?? []) await this.#change(slot, before);
    this.#tell();
  }

  /** Mark otherwise; what the model found in this place stays rejected, also after a reload. */
  #replace(item, fields) {
    const rejected = item.state === "suggested" && item.type !== fields.type ? [[{ annotation: null }, { ...item, status: "rejected" }]] : [];
    return this.#decide([[item.slot, { ...fields, status: "approved" }], ...rejected]);
  }

  #findSlot(fields) {
    const found = [...this.slots.values()].find((slot) => keyOf(slot.annotation) === keyOf(fields));
    return found ?? { annotation: null };
  }

  /** Store what was decided, as one step that can be undone; what was stored before an error can be undone, too. */
  async #decide(decisions) {
    const step = [];
    this.steps.push(step);
    try {
      for (const [slot, fields] of decisions) {
        const before = slot.annotation && pick(slot.annotation);
        if (await this.#change(slot, fields)) step.push([slot, before]);
      }
    } finally {
      if (!step.length) this.steps.splice(this.steps.indexOf(step), 1);
      this.#tell();
    }
  }

  /** Make, change or remove the annotation of a slot; return whether that was done. */
  async #change(slot, fields) {
    const { annotation } = slot;
    if (!annotation && !fields) return false;
    try {
      if (!fields) {
        await request(`annotations/${annotation.id}`, { method: "DELETE", headers: { "If-Match": `"${annotation.revision}"` } });
        this.slots.delete(annotation.id);
        slot.annotation = null;
      } else if (annotation) {
        const headers = { "If-Match": `"${annotation.revision}"` };
        const body = { ...this.#describe(fields), notes: annotation.notes };
        this.#store(slot, await request(`annotations/${annotation.id}`, { method: "PUT", headers, body }));
      } else {
        const path = `documents/${this.documentId}/annotations`;
        this.#store(slot, await request(path, { method: "POST", body: this.#describe(fields) }));
      }
      return true;
    } catch (error) {
      return this.#settle(slot, fields, error);
    }
  }

  /** Settle a conflict: with somebody who changed or removed the annotation, or marked the same. */
  async #settle(slot, fields, error) {
    if (!(error instanceof ApiError) || ![404, 409, 412].includes(error.status)) throw error;
    const mine = slot.annotation;
    await this.refresh();
    if (error.status === 409) {
      const same = fields && this.#findSlot(fields);
      if (!same?.annotation || same === slot) throw error;
      if (mine) await this.#change(slot, null); // both mark the same now: one remains
      slot.annotation = same.annotation;
      this.slots.set(same.annotation.id, slot);
      return same.annotation.status === fields.status || this.#change(slot, fields);
    }
    if (!slot.annotation && !fields) return false; // both removed it
    const isKept = await this.resolve(slot.annotation, { ...mine, ...fields });
    return isKept && this.#change(slot, fields);
  }

  #describe(fields) {
    return { ...pick(fields), value: this.text.slice(fields.start, fields.end) };
  }

  #store(slot, annotation) {
    slot.annotation = annotation;
    this.slots.set(annotation.id, slot);
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

function pick(fields) {
  return Object.fromEntries(FIELDS.map((name) => [name, fields[name]]));
}
