import { render } from "preact";
import { App } from "./app";
import { startClock } from "./live";
import "./styles.css";

const root = document.getElementById("app");
if (root === null) throw new Error("index.html has no element with id app");
startClock();
render(<App />, root);
