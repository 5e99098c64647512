/** How the page shows what goes wrong. */

import { ApiError } from "./api.js";
import { h, showProblem } from "./elements.js";
import { t, translate } from "./language.js";

/** Return a sentence for an error: the API's own words, or that it does not answer; anything else is our bug. */
export function describe(error) {
  if (!(error instanceof ApiError)) throw error;
  return error.status === 0 ? t("noAnswer") : t("refused", { detail: translate(error.message)[0] });
}

/** Return a paragraph with what the API says. */
export function quote(message, kind) {
  const [text, lang] = translate(message);
  return h("p", { lang, class: kind }, text);
}

/** Return a function that does what `action` does and shows the API's errors; after 401, sign-in is shown instead. */
export function guarded(action) {
  return async (...values) => {
    try {
      return await action(...values);
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      const text = describe(error);
      if (error.status !== 401) showProblem(text, t("close"));
      return undefined;
    }
  };
}
