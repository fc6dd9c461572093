// The scope every page shares: service, time range, live or paused; and theme and help.
import { moment, plural } from "../format";
import { namespaceIfNeeded } from "../compare/choose";
import { patch, url } from "../router";
import { leftOut, services } from "../services";
import { theme, toggleTheme } from "../theme";
import { isMoving, RANGES } from "../url";
import { Choice } from "./choice";

export function TopBar({ onHelp }: { onHelp(): void }) {
  const state = url.value;
  const isDark = theme.value === "dark";
  return (
    <header class="top-bar">
      <ServicePicker />
      <div class="top-end">
        <TimeRange />
        <button
          type="button"
          class={`quiet live ${state.live && isMoving(state) ? "is-live" : ""}`}
          disabled={!isMoving(state)}
          aria-pressed={state.live && isMoving(state)}
          title={isMoving(state) ? "Refreshes every 5 s while this tab is visible" : "A fixed range does not change"}
          onClick={() => patch({ live: !state.live }, "replace")}
        >
          <i class="live-dot" aria-hidden="true" />
          {state.live && isMoving(state) ? "Live" : "Paused"}
        </button>
        <button type="button" class="quiet" aria-label={isDark ? "Light theme" : "Dark theme"} title={isDark ? "Light theme" : "Dark theme"} onClick={toggleTheme}>
          {isDark ? "☀" : "☾"}
        </button>
        <button type="button" class="quiet" aria-label="Help" title="Help  ?" onClick={onHelp}>
          ?
        </button>
      </div>
    </header>
  );
}

function ServicePicker() {
  const state = url.value;
  const known = services.value ?? [];
  const allowsAll = state.page === "topology" || state.page === "alerts" || state.page === "status";
  // A link may name a namespace where the service's name alone is enough; it is the same entry.
  const picked = known.find((entry) => entry.service === state.service && (state.namespace === null || entry.namespace === state.namespace));
  const shown = picked === undefined ? state.namespace : namespaceIfNeeded(known, picked);
  const value = (service: string, namespace: string | null) => JSON.stringify([service, namespace]);
  const choose = (raw: string) => {
    const keep = { baseline: null, candidate: null, route: null, focus: null, pick: null, baselineFrom: null, baselineTo: null, candidateFrom: null, candidateTo: null };
    if (raw === "") return patch({ service: null, namespace: null });
    const [service, namespace] = JSON.parse(raw) as [string, string | null];
    patch({ ...keep, service, namespace });
  };
  return (
    <label class="field service-picker">
      <span>Service</span>
      <select value={state.service === null ? "" : value(state.service, shown)} onChange={(event) => choose(event.currentTarget.value)}>
        {(allowsAll || state.service === null) && <option value="">{allowsAll ? "All services" : "Choose a service"}</option>}
        {state.service !== null && picked === undefined && <option value={value(state.service, state.namespace)}>{state.service}</option>}
        {known.map((entry) => {
          const namespace = namespaceIfNeeded(known, entry);
          return (
            <option key={value(entry.service, entry.namespace)} value={value(entry.service, namespace)}>
              {namespace === null ? entry.service : `${entry.namespace} / ${entry.service}`}
            </option>
          );
        })}
        {leftOut.value > 0 && <option disabled>{plural(leftOut.value, "more service")} reported for a shorter time</option>}
      </select>
    </label>
  );
}

function TimeRange() {
  const state = url.value;
  const quick = RANGES.find((range) => state.to === "now" && state.from === `now-${range}`);
  const isFixed = !isMoving(state);
  return (
    <div class="time-range">
      {quick === undefined && (
        <span class="badge" title="Range from this link">
          {isFixed ? `${moment(Number(state.from) * 1000)} – ${moment(Number(state.to) * 1000)}` : `${state.from} – ${state.to}`}
        </span>
      )}
      <Choice
        label="Time range"
        isLabelled={false}
        value={quick ?? ""}
        options={RANGES.map((range) => [range, range, `The last ${range}`] as [string, string, string])}
        onChange={(range) => patch({ from: `now-${range}`, to: "now", baselineFrom: null, baselineTo: null, candidateFrom: null, candidateTo: null })}
      />
    </div>
  );
}
