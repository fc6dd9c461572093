// The sticky bar of Compare: what is compared with what, by which measure, on how much evidence.
import { count, moment, NO_ROUTE, NO_ROUTE_TITLE, PER_WORDS, rate, routeName, shortBuild, stretch } from "../format";
import { Choice } from "../parts/choice";
import { patch, url } from "../router";
import type { Diff, SideSummary, Per, ReleaseStats } from "../types";
import { badgesOf, perNote, perOf } from "./choose";

interface BarProps {
  releases: readonly ReleaseStats[];
  routes: readonly string[];
  baseline: string | null;
  candidate: string | null;
  diff: Diff | null;
}

const PERS: readonly Per[] = ["request", "second", "total"];

export function CompareBar({ releases, routes, baseline, candidate, diff }: BarProps) {
  const state = url.value;
  const swap = () =>
    patch({
      baseline: candidate,
      candidate: baseline,
      baselineFrom: state.candidateFrom,
      baselineTo: state.candidateTo,
      candidateFrom: state.baselineFrom,
      candidateTo: state.baselineTo,
    });
  const chooseRoute = (route: string | null) => patch({ route, per: perOf(route, state.per), focus: null });
  const per = state.per === "best" ? (diff?.per ?? "request") : state.per;
  const note = diff === null ? null : perNote(state.per, diff);
  const routeOptions = state.route !== null && !routes.includes(state.route) ? [state.route, ...routes] : routes;
  return (
    <div class="compare-bar">
      <div class="compare-sides">
        <SideBox which="baseline" version={baseline} releases={releases} side={diff?.baseline ?? null} onChange={(version) => patch({ baseline: version, baselineFrom: null, baselineTo: null })} />
        <button type="button" class="quiet swap" title="Swap baseline and candidate" aria-label="Swap baseline and candidate" onClick={swap}>
          ⇄
        </button>
        <SideBox which="candidate" version={candidate} releases={releases} side={diff?.candidate ?? null} onChange={(version) => patch({ candidate: version, candidateFrom: null, candidateTo: null })} />
      </div>
      <div class="compare-options">
        <label class="field">
          <span>Route</span>
          <select value={state.route ?? ""} onChange={(event) => chooseRoute(event.currentTarget.value || null)}>
            <option value="">all routes</option>
            {routeOptions.map((route) => (
              <option key={route} value={route} title={route === NO_ROUTE ? NO_ROUTE_TITLE : undefined}>
                {routeName(route)}
              </option>
            ))}
          </select>
        </label>
        <Choice
          label="Code of"
          value={state.component}
          options={[
            ["application", "application", "The service’s own process"],
            ["proxy", "proxy", "Its sidecar"],
          ]}
          onChange={(component) => patch({ component, focus: null })}
        />
        <Choice
          label="CPU"
          value={per}
          options={PERS.map((one) => [one, PER_WORDS[one].short, PER_WORDS[one].sentence])}
          onChange={(chosen) => patch({ per: chosen })}
        />
        <span class="soft per-words">{note ?? PER_WORDS[per].sentence}.</span>
      </div>
      {diff !== null && badgesOf(diff).length > 0 && (
        <div class="badges">
          {badgesOf(diff).map((badge) => (
            <span class="badge badge-warn" key={badge.text} title={badge.title}>
              <span aria-hidden="true">! </span>
              {badge.text}
            </span>
          ))}
        </div>
      )}
    </div>
  );
}

interface SideBoxProps {
  which: "baseline" | "candidate";
  version: string | null;
  releases: readonly ReleaseStats[];
  side: SideSummary | null;
  onChange(version: string): void;
}

function SideBox({ which, version, releases, side, onChange }: SideBoxProps) {
  const known = version === null || releases.some((release) => release.version === version);
  return (
    <div class={`side side-${which}`}>
      <label class="field">
        <span>
          <i class={`side-dot side-dot-${which}`} aria-hidden="true" />
          {which === "baseline" ? "Baseline" : "Candidate"}
        </span>
        <select value={version ?? ""} onChange={(event) => onChange(event.currentTarget.value)}>
          {version === null && <option value="">none</option>}
          {!known && <option value={version ?? ""}>{version} (not in this range)</option>}
          {releases.map((release) => (
            <option key={release.version} value={release.version}>
              {release.version}
              {release.live ? " (live)" : ""}
            </option>
          ))}
        </select>
      </label>
      {side === null ? (
        <div class="side-facts" />
      ) : (
        <div class="side-facts">
          <span>
            <b>{count(side.requests)}</b> requests
          </span>
          <span>
            <b>{count(side.samples)}</b> samples
          </span>
          <span title={`${moment(side.from_ms)} to ${moment(side.to_ms)}`}>
            <b>{count(side.windows)}</b> {side.windows === 1 ? "window" : "windows"} ({stretch(side.seconds * 1000)})
          </span>
          <span class="soft" title={`Requests cover ${stretch(side.coverage.requests_s * 1000)}, profiles ${stretch(side.coverage.profiles_s * 1000)}; joined by ${side.coverage.joined_by}`}>
            both cover {stretch(side.coverage.covered_s * 1000)}
          </span>
          <span class="soft">{side.seconds > 0 ? rate(side.requests / side.seconds) : ""}</span>
          {side.build_ids.length > 0 && (
            <span class="soft" title={side.build_ids.join("\n")}>
              build <code>{side.build_ids.slice(0, 2).map(shortBuild).join(", ")}</code>
              {side.build_ids.length > 2 && ` +${side.build_ids.length - 2}`}
            </span>
          )}
        </div>
      )}
    </div>
  );
}
