/** The page's language: its messages, dates and numbers. */

import { MESSAGES } from "./messages.js";
import { translateServerMessage } from "./server_messages.js";

const STORED = "contract-feedback-language";
export const LANGUAGES = { en: "English", pt: "Português" };

function findLanguage() {
  const stored = localStorage.getItem(STORED);
  if (stored in LANGUAGES) return stored;
  return navigator.language.toLowerCase().startsWith("pt") ? "pt" : "en";
}

export const language = findLanguage();
const plural = new Intl.PluralRules(language);
const shortNumber = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const scoreNumber = new Intl.NumberFormat(language, { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const percent = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
const dateTime = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
const since = new Intl.RelativeTimeFormat(language, { numeric: "auto" });

/** Use a language from now on; the page loads again. */
export function chooseLanguage(chosen) {
  localStorage.setItem(STORED, chosen);
  location.reload();
}

/** Return a message in the page's language; `{name}` in it is replaced, and `count` chooses singular or plural. */
export function t(name, values = {}) {
  const message = MESSAGES[name][language];
  const text = typeof message === "string" ? message : message[plural.select(values.count) === "one" ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (_, key) => (typeof values[key] === "number" ? formatNumber(values[key]) : values[key]));
}

/** Return a message of the API in the page's language if it is known, and the language that it is in. */
export const translate = (message) => translateServerMessage(message, language);

export const formatNumber = (number) => shortNumber.format(number);
export const formatScore = (score) => (score === null || score === undefined ? "–" : scoreNumber.format(score));
export const formatPercent = (share) => percent.format(share);
export const formatDate = (text) => dateTime.format(new Date(text));

/** Return how long ago something was, such as "2 minutes ago". */
export function formatSince(text) {
  const seconds = Math.round((new Date(text) - Date.now()) / 1000);
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (-seconds >= length) return since.format(Math.round(seconds / length), unit);
  }
  return since.format(Math.min(seconds, 0), "second");
}
