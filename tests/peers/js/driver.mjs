// Lets a test script matrix-js-sdk: reads commands as lines of JSON, and answers each with one such line.
//
//     {"do": "getThreePids", "with": []}  ->  {"ok": {"threepids": []}}
//     {"do": "addThreePidOnly", "with": [{"sid": "1", "client_secret": "a"}]}
//         ->  {"error": {"httpStatus": 401, "errcode": null, "data": {"flows": …}}}
//
// Any method of a MatrixClient can be asked for; "login" remembers the access token as well.

import { Console } from "node:console";
import process from "node:process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// The standard output is for the answers alone.
globalThis.console = new Console(process.stderr);

const [folder, baseUrl] = process.argv.slice(2);
const library = (name) => import(pathToFileURL(`${folder}/node_modules/matrix-js-sdk/lib/${name}.js`));
const { createClient } = await library("index");
const { logger } = await library("logger");
logger.disableAll?.();

let client = createClient({ baseUrl, logger });

async function login(user, password) {
    const identifier = { type: "m.id.user", user };
    const answer = await client.loginRequest({ type: "m.login.password", identifier, password });
    const { access_token: accessToken, user_id: userId, device_id: deviceId } = answer;
    client = createClient({ baseUrl, logger, accessToken, userId, deviceId });
    return answer;
}

async function run(command) {
    const parameters = command.with ?? [];
    return command.do === "login" ? login(...parameters) : client[command.do](...parameters);
}

for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        answer = { ok: (await run(JSON.parse(line))) ?? null };
    } catch (error) {
        const { name, message, httpStatus = null, errcode = null, data = null } = error;
        answer = { error: { name, message, httpStatus, errcode, data } };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
}
