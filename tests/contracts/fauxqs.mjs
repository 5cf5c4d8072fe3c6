// Runs the emulator on loopback: its own command listens on all interfaces. Prints its URL when it is ready.
import { buildApp } from "fauxqs";

const app = buildApp({ logger: false });
console.log(await app.listen({ host: "127.0.0.1", port: Number(process.argv[2]) }));
