// Page Alerts: what got slower with a release, firing first, each with its evidence.
import { useEffect } from "preact/hooks";
import { AlertCard } from "../alerts/card";
import { inOrder } from "../alerts/words";
import { askAlerts, askTopology } from "../api";
import { useAnswer } from "../answer";
import { count, plural } from "../format";
import { Choice } from "../parts/choice";
import { Empty, Failure, Skeleton } from "../parts/states";
import { patch, url } from "../router";
import { services } from "../services";
import type { Alert } from "../types";

export function AlertsPage() {
  const state = url.value;
  const answer = useAnswer(askAlerts(state.state));
  const { data } = answer;
  useEffect(() => {
    if (state.alert !== null) document.querySelector(`[data-alert="${CSS.escape(state.alert)}"]`)?.scrollIntoView({ block: "start" });
  }, [state.alert, data !== null]);

  if (data === null) return answer.error === null ? <Skeleton rows={8} label="Loading alerts" /> : <Failure error={answer.error} onRetry={answer.retry} />;
  const shown = inOrder(data.alerts).filter((alert) => state.service === null || alert.service === state.service);
  const firing = data.alerts.filter((alert) => alert.state === "firing").length;
  return (
    <div class={`alerts${answer.isStale ? " is-stale" : ""}`} data-ready={!answer.isStale}>
      <header class="page-head">
        <div>
          <h1>Alerts</h1>
          <p class="soft">
            {firing === 0 ? "Nothing is firing" : `${count(firing)} firing`}
            {data.alerts.length > firing && `, ${plural(data.alerts.length - firing, "other alert")}`}
            {shown.length < data.alerts.length && `; showing ${state.service} only`}
          </p>
        </div>
        <Choice
          label="Show"
          value={state.state}
          options={[
            ["all", "all"],
            ["firing", "firing"],
          ]}
          onChange={(next) => patch({ state: next })}
        />
      </header>
      {answer.error !== null && <Failure error={answer.error} onRetry={answer.retry} />}
      {shown.length === 0 ? <NothingYet isFiltered={data.alerts.length > 0} /> : <List alerts={shown} picked={state.alert} />}
    </div>
  );
}

function List({ alerts, picked }: { alerts: readonly Alert[]; picked: string | null }) {
  return (
    <>
      {alerts.map((alert, index) => (
        <AlertCard alert={alert} key={alert.id} isOpen={alert.id === picked || (picked === null && index === 0)} />
      ))}
    </>
  );
}

function NothingYet({ isFiltered }: { isFiltered: boolean }) {
  const topology = useAnswer(askTopology(url.value));
  const known = services.value ?? [];
  const several = known.filter((service) => service.releases.length > 1);
  return (
    <Empty title={isFiltered ? "No alert of this kind" : "No alerts"}>
      <p>
        Watched now: latency on the server side and failed requests, per route, of every edge whose destination has at least two releases. If nothing changed, a
        latency alert fires at most once in 100 watches, an error alert once in 1,000.
      </p>
      <ul>
        <li>
          {plural(known.length, "service")} known, {plural(topology.data?.edges.length ?? 0, "edge")} with traffic in this range
        </li>
        <li>
          {several.length === 0
            ? "No service has two releases in this range, so there is nothing to compare yet"
            : `${several.map((service) => service.service).join(", ")}: more than one release, being compared`}
        </li>
      </ul>
      <p class="soft">A slowdown of 2.5 times or more is reported after a minute or two, a smaller one after at least five minutes.</p>
    </Empty>
  );
}
