// The requests of the README and of the guide, with the types that openapi-typescript makes. A line
// under @ts-expect-error is wrong: tsc fails if it accepts one.
import createClient from "openapi-fetch";
import type { components, paths, webhooks } from "./exports.js";

const api = createClient<paths>({ baseUrl: "http://127.0.0.1:8800", headers: { "X-API-Key": "k" } });

const { data: made, error: refused } = await api.POST("/v1/exports", {
  body: { source: "board", query: { job_titles: ["engineer"] }, format: "csv" },
});
if (!made) throw new Error(`${refused.code}: ${refused.detail}`);

await api.POST("/v1/exports", {
  params: { header: { "Idempotency-Key": "weekly-7", Prefer: "respond-async, wait=10" } },
  body: {
    source: "board",
    query: { any_filter_of_a_source: { min: 1 } },
    format: "json",
    compression: "zstd",
    metadata: { team: "growth" },
    webhook_url: "https://hooks.example.com/exports",
    webhook_events: ["export.finished"],
  },
});
await api.POST("/v1/exports", {
  // @ts-expect-error: no such format
  body: { source: "board", query: {}, format: "xml" },
});
await api.POST("/v1/exports", {
  // @ts-expect-error: without a source
  body: { query: {}, format: "csv" },
});
await api.POST("/v1/exports", {
  // @ts-expect-error: no such field
  body: { source: "board", query: {}, format: "csv", colums: ["id"] },
});

const { data: polled } = await api.GET("/v1/exports/{export_id}", {
  params: { path: { export_id: made.id }, query: { wait: 30 } },
});
const url: string | null | undefined = polled?.result?.download_url;
const rows: number | undefined = polled?.result?.completeness.exported;
// @ts-expect-error: null until it has ended
const end: string = polled!.completed_at;
// @ts-expect-error: without the id
await api.GET("/v1/exports/{export_id}", {});

const { data: page } = await api.GET("/v1/exports", {
  params: { query: { state: "failed,canceled", order: "oldest", metadata: { team: "growth" } } },
});
const names: string[] = page?.exports.map((one) => one.name) ?? [];
await api.GET("/v1/exports", {
  // @ts-expect-error: no such order
  params: { query: { order: "random" } },
});

const { data: task } = await api.POST("/v2/jobs/export", {
  body: { search: { job_titles: "welder", salary: { min: 40000 } }, format: "csv" },
});
const { data: counted } = await api.POST("/v1/exports/estimate", {
  body: { source: "board", query: {} },
});
const records: number | null | undefined = counted?.records;
const { data: found } = await api.GET("/v2/jobs/{job_id}", { params: { path: { job_id: "1" } } });
const other: unknown = found?.a_field_of_the_source;
const { data: health } = await api.GET("/health");

type Finished = webhooks["export.finished"]["post"]["requestBody"]["content"]["application/json"];
type Failing = webhooks["endpoint.failing"]["post"]["requestBody"]["content"]["application/json"];

export function receive(event: Finished | Failing): string {
  if (event.type === "export.finished") return `${event.data.record_count} rows`;
  if (event.type === "endpoint.failing") return event.data.host;
  // @ts-expect-error: no such event
  if (event.type === "export.lost") return "";
  return event.type;
}

export const all = { url, rows, end, names, task, records, other, health };
export type Problem = components["schemas"]["Problem"];
