// The frame around every page: rail, top bar, help; and which page the address names.
import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { askAlerts, askServices } from "./api";
import { useAnswer } from "./answer";
import { Help } from "./parts/help";
import { Link } from "./parts/link";
import { Empty, Failure, Skeleton, Waiting } from "./parts/states";
import { ComparePage } from "./pages/compare";
import { go, lastService, url } from "./router";
import { firing, leftOut, services } from "./services";
import { TopBar } from "./parts/top-bar";
import { elsewhere, type Page, type UrlState } from "./url";

// Compare is the product's face and comes with the first load; the others are fetched when opened.
const LATER: Partial<Record<Page, () => Promise<ComponentType>>> = {
  topology: () => import("./pages/topology").then((module) => module.TopologyPage),
  service: () => import("./pages/service").then((module) => module.ServicePage),
  alerts: () => import("./pages/alerts").then((module) => module.AlertsPage),
  status: () => import("./pages/status").then((module) => module.StatusPage),
};

const RAIL: readonly [Page, string, string][] = [
  ["compare", "Compare", "M3 4h14v3H3zM3 8.5h9v3H3zM3 13h5v3H3z"],
  ["topology", "Topology", "M2 8h5v4H2zM13 3h5v4h-5zM13 13h5v4h-5zM7 9.4l6-5v1.8L7 11.2zM7 9.6l6 4.8v1.8l-6-4.8z"],
  ["service", "Service", "M3 15h2V9H3zM7 15h2V5H7zM11 15h2v-4h-2zM15 15h2V7h-2z"],
  ["alerts", "Alerts", "M10 2l8.5 15h-17zM9.2 8v4.5h1.6V8zm0 5.6v1.6h1.6v-1.6z"],
  ["status", "Status", "M2 9h3.4l2.2-6 4 13 2.6-7H18v2h-2.6l-3.8 9.6L7.4 7.6 6.8 11H2z"],
];

const TITLES: Record<Page, string> = {
  home: "Emberline",
  compare: "Compare",
  topology: "Topology",
  service: "Service",
  alerts: "Alerts",
  status: "Status",
  missing: "Not found",
};

export function App() {
  const state = url.value;
  const isHelpOpen = useSignal(false);
  const listed = useAnswer(askServices(state));
  const fired = useAnswer(askAlerts("firing"));
  useEffect(() => {
    if (listed.data === null) return;
    services.value = listed.data.services;
    leftOut.value = listed.data.left_out;
  }, [listed.data]);
  useEffect(() => {
    if (fired.data !== null) firing.value = fired.data.alerts.filter((alert) => alert.state === "firing").length;
  }, [fired.data]);
  useEffect(() => {
    document.title = [state.page === "alerts" || state.page === "topology" || state.page === "status" ? null : state.service, TITLES[state.page], state.page === "home" ? null : "Emberline"]
      .filter((part) => part !== null)
      .join(" · ");
  }, [state.page, state.service]);
  useEffect(() => {
    if (state.page === "home" && listed.data !== null && listed.data.services.length > 0) go(elsewhere(state, "compare"), "replace");
  }, [state.page, listed.data]);
  useEffect(() => {
    const open = (event: KeyboardEvent) => {
      const isTyping = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
      if (event.key === "?" && !isTyping) isHelpOpen.value = true;
    };
    addEventListener("keydown", open);
    return () => removeEventListener("keydown", open);
  }, []);

  return (
    <>
      <button type="button" class="skip" onClick={() => document.querySelector("main")?.focus()}>
        Skip to the page
      </button>
      <Rail state={state} />
      <TopBar onHelp={() => (isHelpOpen.value = true)} />
      <main tabIndex={-1} data-page={state.page}>
        {listed.error !== null && listed.data === null && state.page !== "alerts" && state.page !== "status" ? (
          <Failure error={listed.error} onRetry={listed.retry} />
        ) : (
          <Body page={state.page} />
        )}
      </main>
      {isHelpOpen.value && <Help onClose={() => (isHelpOpen.value = false)} />}
    </>
  );
}

function Body({ page }: { page: Page }) {
  if (page === "compare") return <ComparePage />;
  if (page === "home") return services.value === null ? <Skeleton /> : <Waiting />;
  const load = LATER[page];
  if (load !== undefined) return <Later key={page} load={load} />;
  return (
    <Empty title="Page not found">
      <p>Check the address, or choose a page on the left.</p>
    </Empty>
  );
}

function Later({ load }: { load(): Promise<ComponentType> }) {
  const [page, setPage] = useState<{ component: ComponentType } | null>(null);
  const [isBroken, setBroken] = useState(false);
  const isMounted = useRef(true);
  useEffect(() => {
    load().then(
      (component) => isMounted.current && setPage({ component }),
      () => isMounted.current && setBroken(true),
    );
    return () => {
      isMounted.current = false;
    };
  }, []);
  if (isBroken) {
    return (
      <Empty title="Cannot load this page">
        <p>The server may have been updated since this tab was opened.</p>
        <button type="button" class="button" onClick={() => location.reload()}>
          Reload
        </button>
      </Empty>
    );
  }
  if (page === null) return <Skeleton rows={10} />;
  const { component: Component } = page;
  return <Component />;
}

function Rail({ state }: { state: UrlState }) {
  return (
    <nav class="rail" aria-label="Pages">
      <Link to={elsewhere(state, "home")} class="brand" aria-label="Emberline, home">
        <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
          <rect x="1" y="2" width="18" height="4.4" rx="1" fill="currentColor" />
          <rect x="1" y="7.8" width="13" height="4.4" rx="1" fill="var(--ember-soft)" />
          <rect x="1" y="13.6" width="7.5" height="4.4" rx="1" fill="var(--ember)" />
        </svg>
        <span>Emberline</span>
      </Link>
      {RAIL.map(([page, name, icon]) => {
        const scope = page === "compare" || page === "service" ? (lastService.value ?? {}) : {};
        return (
          <Link
            key={page}
            to={page === state.page ? state : elsewhere(state, page, scope)}
            class="rail-item"
            aria-current={page === state.page ? "page" : undefined}
          >
            <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
              <path d={icon} fill="currentColor" fill-rule="evenodd" />
            </svg>
            <span>{name}</span>
            {page === "alerts" && (firing.value ?? 0) > 0 && (
              <span class="rail-count" aria-label={`${firing.value} firing`}>
                {firing.value}
              </span>
            )}
          </Link>
        );
      })}
    </nav>
  );
}
