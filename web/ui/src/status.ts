// Reading the server's status answer, whose counters differ between builds. Pure.

/** The plain counters of a status answer, two levels deep, named in words. */
export function numbersIn(status: Record<string, unknown>, limit = 16): [string, number][] {
  const found: [string, number][] = [];
  for (const section of ["ingest", "store", "symbols"]) {
    const values = status[section];
    if (typeof values !== "object" || values === null) continue;
    for (const [key, value] of Object.entries(values)) {
      if (typeof value === "number" && found.length < limit) found.push([`${section}: ${key.replaceAll("_", " ")}`, value]);
    }
  }
  return found;
}
