// node read_zarr.mjs ZARRITA FOLDER...: a line of JSON for each array, of what zarrita reads in it.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [, , zarrita, ...folders] = process.argv;
const zarr = await import(pathToFileURL(zarrita));

const files = (folder) => ({
  async get(key) {
    try {
      return new Uint8Array(await readFile(join(folder, key)));
    } catch (error) {
      if (error.code === "ENOENT") return undefined;
      throw error;
    }
  },
  async getRange(key, range) {
    const whole = await this.get(key);
    if (whole === undefined) return undefined;
    if (range.suffixLength !== undefined) return whole.slice(whole.length - range.suffixLength);
    return whole.slice(range.offset, range.offset + range.length);
  },
});

for (const folder of folders) {
  const array = await zarr.open.v3(files(folder), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  const values = Array.isArray(data)
    ? { texts: data }
    : { sha256: createHash("sha256").update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)).digest("hex") };
  console.log(JSON.stringify({ dtype: array.dtype, shape, axes: array.dimensionNames, ...values }));
}
