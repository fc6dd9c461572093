// What a page of another site gets from the server in a real browser, and what the server's own page gets. Prints what it
// found as one line of JSON; the end-to-end tests judge it.
//   BASE_URL (pages and API), INGEST_URL (OTLP over HTTP), SERVICE (a stored one)
import { createServer } from "node:http";
import { openBrowser, watchedPage } from "./browser.mjs";

const { BASE_URL: base, INGEST_URL: ingest, SERVICE: service } = process.env;
const picture = `${base}/api/v1/profile?format=svg&from=now-1h&service=${service}`;

/** The page of another site: a script, a form that needs none, a picture, a script element, a frame, a link. */
const foreign = `<!doctype html><title>elsewhere</title>
<a id=link href="${base}/services">to the pages</a>
<iframe name=sink></iframe><iframe id=framed src="${base}/"></iframe>
<form id=form method=post enctype="multipart/form-data" target=sink action="${ingest}/ingest?name=planted-by-form&format=folded">
  <input name=profile value="main;leaf 5"></form>
<script>
  const loads = (make) => new Promise((done) => { const it = make(); it.onload = () => done("load"); it.onerror = () => done("error"); document.body.append(it); });
  const fetched = (...of) => fetch(...of).then((answer) => answer.type + " " + answer.status, () => "failed");
  window.attack = async () => {
    document.getElementById("form").submit();
    return {
      upload: await fetched("${ingest}/api/ingest?service=planted-by-fetch&version=v1&time=received", { method: "POST", mode: "no-cors", body: "main;leaf 5" }),
      statement: await fetched("${base}/api/v1/releases", { method: "POST", mode: "no-cors", body: '{"service":"${service}","version":"v9"}' }),
      reading: await fetched("${base}/api/v1/services"),
      picture: await loads(() => Object.assign(new Image(), { src: "${picture}" })),
      script: await loads(() => Object.assign(document.createElement("script"), { src: "${base}/api/v1/status" })),
    };
  };
</script>`;

const elsewhere = createServer((request, response) => response.setHeader("content-type", "text/html").end(foreign));
await new Promise((listens) => elsewhere.listen(0, "127.0.0.1", listens));
const { context, close } = await openBrowser({ width: 1200, height: 800 });
try {
  const page = await context.newPage();
  // Another site than 127.0.0.1, though it is the same machine.
  await page.goto(`http://localhost:${elsewhere.address().port}/`);
  const attack = await page.evaluate(() => window.attack());
  await page.waitForTimeout(500);
  await page.click("#link");
  await page.waitForLoadState("load");
  const followed = await page.title();

  const own = await watchedPage(context);
  await own.page.goto(`${base}/`);
  await own.page.waitForLoadState("networkidle");
  const picture_here = await own.page.evaluate((src) => new Promise((done) => {
    const image = Object.assign(new Image(), { src });
    image.addEventListener("load", () => done("load"));
    image.addEventListener("error", () => done("error"));
  }), picture);
  const statement_here = await own.page.evaluate(async (name) => {
    const body = JSON.stringify({ service: name, version: "v1" });
    return (await fetch("/api/v1/releases", { method: "POST", body })).status;
  }, service);
  console.log(JSON.stringify({ attack, followed, own: { title: await own.page.title(), problems: own.problems, picture: picture_here, statement: statement_here } }));
} finally {
  await close();
  elsewhere.close();
}
