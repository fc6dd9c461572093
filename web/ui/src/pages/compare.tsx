// Page Compare: what changed between two releases of a service, per request, down to the function.
import { useEffect, useMemo } from "preact/hooks";
import { askDiff, askProfile, askService, type Question } from "../api";
import { useAnswer } from "../answer";
import { CompareBar } from "../compare/bar";
import { chooseReleases, chooseService, namespaceIfNeeded, otherComponent, routesOf } from "../compare/choose";
import { FunctionsTable } from "../compare/functions-table";
import { ShareLinks } from "../compare/links";
import { LatencyStrip, Verdict } from "../compare/verdict";
import { FlamePanel } from "../flame/panel";
import { fromDiff, fromProfile } from "../flame/tree";
import { count, percent } from "../format";
import { Choice } from "../parts/choice";
import { Empty, Failure, Skeleton, Waiting } from "../parts/states";
import { lastService, patch, url } from "../router";
import { services } from "../services";
import type { Component, Diff, ProfileAnswer } from "../types";

export function ComparePage() {
  const state = url.value;
  const known = services.value;
  useEffect(() => {
    if (state.service !== null || known === null) return;
    const chosen = lastService.value ?? named(known);
    if (chosen !== null) patch(chosen, "replace");
  }, [state.service, known]);

  if (state.service === null) {
    if (known !== null && known.length === 0) return <Waiting />;
    return <Skeleton rows={10} label="Looking for services" />;
  }
  return <CompareService key={`${state.namespace}/${state.service}`} />;
}

function named(known: NonNullable<typeof services.value>) {
  const chosen = chooseService(known);
  return chosen === null ? null : { service: chosen.service, namespace: namespaceIfNeeded(known, chosen) };
}

function CompareService() {
  const state = url.value;
  const about = useAnswer(askService(state));
  const releases = about.data?.releases ?? [];
  const chosen = chooseReleases(releases, state.baseline, state.candidate);
  const canCompare = chosen.baseline !== null && chosen.candidate !== null;
  const asked = askDiff({ ...state, ...chosen });
  const diff = useAnswer(about.data !== null && canCompare ? asked : null);

  if (about.error !== null && about.data === null) return <Failure error={about.error} onRetry={about.retry} />;
  if (about.data === null) return <Skeleton rows={12} label="Loading releases" />;
  const only = releases[0];
  const other = otherComponent(releases, state.component);
  return (
    <div class="compare" data-ready={diff.data !== null && !diff.isStale}>
      <h1 class="unseen">Compare releases of {state.service}</h1>
      <CompareBar releases={releases} routes={routesOf(about.data.routes)} {...chosen} diff={canCompare ? diff.data : null} />
      {canCompare && other !== null && (
        <p class="other-code">
          <OtherCode asked={state.component} other={other} />
        </p>
      )}
      {!canCompare ? (
        only === undefined ? (
          <Empty title={`No release of ${state.service} in this range`}>
            <p>Choose a longer time range, or another service.</p>
          </Empty>
        ) : (
          <OneRelease version={only.version} other={other} />
        )
      ) : diff.data !== null ? (
        <div class={diff.isStale ? "is-stale" : undefined}>
          {diff.error !== null && <Failure error={diff.error} onRetry={diff.retry} />}
          <Comparison diff={diff.data} asked={asked} />
        </div>
      ) : diff.error !== null ? (
        <Failure error={diff.error} onRetry={diff.retry} />
      ) : (
        <Skeleton rows={14} label="Comparing" />
      )}
    </div>
  );
}

function Comparison({ diff, asked }: { diff: Diff; asked: Question<unknown> }) {
  const { view } = url.value;
  const tree = useMemo(() => fromDiff(diff), [diff]);
  return (
    <>
      <Verdict diff={diff} />
      <LatencyStrip diff={diff} />
      <div class="view-switch">
        <Choice
          label="View"
          value={view}
          options={[
            ["merged", "merged", "Both releases in one graph"],
            ["split", "split", "Baseline above candidate, on one scale"],
            ["table", "table", "Every column, no graph"],
          ]}
          onChange={(next) => patch({ view: next })}
        />
      </div>
      <div class={`compare-body view-${view}`}>
        <FunctionsTable diff={diff} isWide={view === "table"} />
        {view !== "table" && (
          <FlamePanel
            tree={tree}
            functions={diff.functions}
            isJudged={diff.judgement === "changed"}
            per={diff.per}
            names={{ baseline: diff.baseline.version, candidate: diff.candidate.version }}
          />
        )}
      </div>
      <ShareLinks asked={asked} />
    </>
  );
}

/** A service that is only seen through its sidecar has no profile of its own; the other way round as well. */
function OtherCode({ asked, other }: { asked: Component; other: Component }) {
  return (
    <>
      The {asked} sent no samples in this range, only the {other} did.{" "}
      <button type="button" class="link" onClick={() => patch({ component: other, focus: null })}>
        Show the {other}
      </button>
    </>
  );
}

/** Before a second release exists: the profile of the only one. */
function OneRelease({ version, other }: { version: string; other: Component | null }) {
  const state = url.value;
  const asked = askProfile(state, version);
  const profile = useAnswer(asked);
  return (
    <>
      <Empty title={`Only release ${version} of ${state.service} was seen in this range`}>
        <p>A comparison needs two. It starts automatically when another release receives traffic. Until then, this is where its CPU time goes.</p>
      </Empty>
      {profile.data !== null ? (
        <Solo profile={profile.data} other={other} />
      ) : profile.error !== null ? (
        <Failure error={profile.error} onRetry={profile.retry} />
      ) : (
        <Skeleton rows={8} />
      )}
      <ShareLinks asked={asked} />
    </>
  );
}

const NO_FUNCTIONS: never[] = [];

function Solo({ profile, other }: { profile: ProfileAnswer; other: Component | null }) {
  const { per, component } = url.value;
  // Only requests are known here; seconds belong to a comparison's sides.
  const shown = (per === "request" || per === "best") && profile.requests > 0 ? "request" : "total";
  const tree = useMemo(() => fromProfile(profile.tree, shown === "request" ? profile.requests : 1), [profile, shown]);
  if (tree.size <= 1) {
    return (
      <Empty title="No stack samples yet">
        <p>
          {other === null ? (
            "Requests are counted, but no CPU samples have arrived for this selection. Samples arrive every 10 seconds."
          ) : (
            <OtherCode asked={component} other={other} />
          )}
        </p>
      </Empty>
    );
  }
  return (
    <>
      <p class="soft">
        {count(profile.samples)} samples, {count(profile.requests)} requests, {percent(profile.resolved_ratio)} of samples have a function name
      </p>
      <FlamePanel tree={tree} functions={NO_FUNCTIONS} isJudged={false} per={shown} names={null} />
    </>
  );
}
