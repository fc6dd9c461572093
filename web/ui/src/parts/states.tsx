// What stands where an answer should be: loading, an error, or nothing yet. Each says what to do.
import type { ComponentChildren } from "preact";
import type { ApiError } from "../api";
import { askStatus } from "../api";
import { useAnswer } from "../answer";
import { count } from "../format";
import { countersIn, refusedIn } from "../status";
import { Sentence } from "./sentence";

/** Grey bars of about the height of what will come. */
export function Skeleton({ rows = 6, label = "Loading" }: { rows?: number; label?: string }) {
  return (
    <div class="skeleton" role="status" aria-label={label}>
      {Array.from({ length: rows }, (_, row) => (
        <i key={row} style={{ width: `${92 - ((row * 37) % 40)}%` }} />
      ))}
    </div>
  );
}

/** What was asked, what the server said, and a way to ask again. */
export function Failure({ error, onRetry }: { error: ApiError; onRetry(): void }) {
  const asked = new URL(error.address);
  return (
    <div class="notice notice-error" role="alert">
      <h2>{error.status === 404 ? "Nothing found" : "Cannot show this"}</h2>
      <p>
        <Sentence text={error.message} />
      </p>
      <p class="soft">
        Asked <code>{decodeURIComponent(asked.pathname + asked.search)}</code>
        {error.status > 0 && ` · ${error.status} ${error.code}`}
      </p>
      <p>
        <button type="button" class="button" onClick={onRetry}>
          Retry
        </button>{" "}
        {!error.retry && <span class="soft">Retrying will not help unless the selection changes.</span>}
      </p>
    </div>
  );
}

export function Empty({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="notice">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Before the first window: what the server has received so far, counting. */
export function Waiting() {
  const status = useAnswer(askStatus());
  const counters = status.data === null ? [] : countersIn(status.data).slice(0, 16);
  const refused = status.data === null ? [] : refusedIn(status.data);
  return (
    <Empty title="No data yet: waiting for the first window">
      <p>
        Proxies and embedded services report every 10 seconds. Point one at this server’s OTLP port, or start the sample mesh:
      </p>
      <pre class="snippet">
        <code>emberline demo</code>
      </pre>
      <pre class="snippet">
        <code>OTEL_EXPORTER_OTLP_ENDPOINT=http://{location.hostname}:4317</code>
      </pre>
      {counters.length > 0 && (
        <dl class="counters" aria-label="Received so far">
          {counters.map(({ section, key, name, value }) => (
            <div key={`${section} ${key}`}>
              <dt>
                {section}: {name}
              </dt>
              <dd>{count(value)}</dd>
            </div>
          ))}
        </dl>
      )}
      {refused.length > 0 && (
        <>
          <p>Some metrics were received but dropped:</p>
          <ul aria-label="Dropped">
            {refused.map((metric) => (
              <li key={`${metric.service} ${metric.metric} ${metric.shape} ${metric.remedy}`}>
                <code>{metric.metric}</code> of {metric.service || "no service"} ({metric.shape}, {count(metric.points)} points):{" "}
                <Sentence text={metric.remedy} />
              </li>
            ))}
          </ul>
        </>
      )}
      {status.error !== null && <p class="soft">Cannot read the server’s status: {status.error.message}</p>}
    </Empty>
  );
}
