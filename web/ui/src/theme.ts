// Light, dark or what the system says; and forced colours, which the canvas has to honour by itself.
import { computed, effect, signal } from "@preact/signals";

export type ThemeChoice = "system" | "light" | "dark";
export type EffectiveTheme = "light" | "dark" | "forced";

const KEY = "emberline.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const forced = matchMedia("(forced-colors: active)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

function stored(): ThemeChoice {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

export const themeChoice = signal<ThemeChoice>(stored());
const systemDark = signal(dark.matches);
const systemForced = signal(forced.matches);

dark.addEventListener("change", () => (systemDark.value = dark.matches));
forced.addEventListener("change", () => (systemForced.value = forced.matches));

export const theme = computed<EffectiveTheme>(() => {
  if (systemForced.value) return "forced";
  if (themeChoice.value !== "system") return themeChoice.value;
  return systemDark.value ? "dark" : "light";
});

export function wantsStillness(): boolean {
  return still.matches;
}

export function toggleTheme(): void {
  themeChoice.value = theme.value === "dark" ? "light" : "dark";
}

effect(() => {
  const choice = themeChoice.value;
  if (choice === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = choice;
  try {
    if (choice === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, choice);
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the page.
  }
});
