// The fixture answers what the server answers: `tsc` compares the names, this the values that only running shows.
import { expect, test } from "vitest";
import { alertsOf, diffOf, profileOf, SCENARIOS, servicePageOf, servicesOf, statusOf, topologyOf } from "../dev/fixture-data.mjs";
import type { Alerts, Diff, ProfileAnswer, ServicePage, Services, Status, Topology } from "../src/types";
import { answer } from "./fixture";

test.each(SCENARIOS.filter((name) => name !== "big"))("the answers of %s are those of the server", (scenario) => {
  const answers: [Diff, ProfileAnswer, ServicePage, Services, Status, Topology, Alerts] = [
    answer<Diff>(diffOf({ scenario, route: "/checkout", now: 0 })),
    answer<ProfileAnswer>(profileOf({ scenario })),
    answer<ServicePage>(servicePageOf(scenario, 0)),
    answer<Services>(servicesOf(scenario, 0)),
    answer<Status>(statusOf(0, 0)),
    answer<Topology>(topologyOf(scenario, 0)),
    answer<Alerts>({ alerts: alertsOf(0) }),
  ];
  expect(JSON.stringify(answers)).not.toContain("undefined");
  const [diff, profile] = answers;
  const columns = [...Object.values(diff.tree).slice(2), ...Object.values(profile.tree).slice(2)] as unknown[][];
  expect(columns.every((column) => column.length === diff.tree.name.length || column.length === profile.tree.name.length)).toBe(true);
});
