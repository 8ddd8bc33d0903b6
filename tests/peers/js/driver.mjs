// Lets a test script matrix-js-sdk: reads commands as lines of JSON, and answers each with one such line.
//
//     {"do": "getThreePids", "with": []}  ->  {"ok": {"threepids": []}}
//     {"do": "addThreePidOnly", "with": [{"sid": "1", "client_secret": "a"}]}
//         ->  {"error": {"httpStatus": 401, "errcode": null, "data": {"flows": …}}}
//
// Any method of a MatrixClient can be asked for; "login" remembers the access token as well, and
// "useIdentityServer" the URL and the token of an identity server. "openTab", "openLink",
// "submitInTab" and "pollInTab" sign somebody up as Element Web does, and answer with what a tab has come to.

import { Console } from "node:console";
import process from "node:process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// The standard output is for the answers alone.
globalThis.console = new Console(process.stderr);

const [folder, baseUrl] = process.argv.slice(2);
const library = (name) => import(pathToFileURL(`${folder}/node_modules/matrix-js-sdk/lib/${name}.js`));
const { createClient } = await library("index");
const { InteractiveAuth } = await library("interactive-auth");
const { logger } = await library("logger");
logger.disableAll?.();

// The identity server that is used, as Element keeps it: its URL, and the token of one's account there.
const identity = { idBaseUrl: undefined, accessToken: null };

const newClient = (account = {}) =>
    createClient({
        baseUrl,
        logger,
        idBaseUrl: identity.idBaseUrl,
        identityServer: { getAccessToken: async () => identity.accessToken },
        ...account,
    });

let client = newClient();

async function login(user, password) {
    const identifier = { type: "m.id.user", user };
    const answer = await client.loginRequest({ type: "m.login.password", identifier, password });
    const { access_token: accessToken, user_id: userId, device_id: deviceId } = answer;
    client = newClient({ accessToken, userId, deviceId });
    return answer;
}

const told = ({ name, message, httpStatus = null, errcode = null, data = null }) => ({
    name,
    message,
    httpStatus,
    errcode,
    data,
});

// The page that Element is at, with parameters as it writes them.
const pageOf = (app, parameters) => {
    const pairs = Object.entries(parameters).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
    return `${app}#/register?${pairs.join("&")}`;
};

// One page of Element where somebody signs up.
class Tab {
    constructor({ app, register, inputs, baseUrl: hs_url, ...resumed }) {
        const matrixClient = createClient({ baseUrl: hs_url, logger });
        this.state = { stage: null, status: null, result: null, error: null };
        this.auth = new InteractiveAuth({
            matrixClient,
            inputs,
            ...resumed,
            doRequest: (auth) => matrixClient.registerRequest({ ...register, ...(auth && { auth }) }),
            requestEmailToken: (email, client_secret, attempt, session_id) => {
                const parameters = { client_secret, hs_url, is_url: undefined, session_id };
                const nextLink = pageOf(app, parameters);
                return matrixClient.requestRegisterEmailToken(email, client_secret, attempt, nextLink);
            },
            stateUpdated: (stage, status) => Object.assign(this.state, { stage, status }),
            busyChanged: (busy) => busy || this.idle?.(),
        });
    }

    // Asks for the stages, and for the first mail.
    async begin() {
        const idle = new Promise((resolve) => (this.idle = resolve));
        this.auth.attemptAuth().then(
            (result) => (this.state.result = result),
            (error) => (this.state.error = told(error)),
        );
        await idle;
        return this.told();
    }

    async submit(auth) {
        this.state.status = null;
        await this.auth.submitAuthDict(auth);
        return this.told();
    }

    async poll() {
        this.state.status = null;
        await this.auth.poll();
        // poll() itself does not wait for its request.
        await this.auth.submitPromise;
        return this.told();
    }

    async told() {
        // What attemptAuth() has promised is settled by now, and its callbacks come right after this one.
        await new Promise((resolve) => setImmediate(resolve));
        const { flows, completed, params } = this.auth.data;
        const session = this.auth.getSessionId();
        const names = { clientSecret: this.auth.getClientSecret(), sid: this.auth.getEmailSid() };
        return { ...this.state, flows, completed, params, session, ...names };
    }
}

const tabs = new Map();

const commands = {
    login,
    useIdentityServer(idBaseUrl, accessToken) {
        Object.assign(identity, { idBaseUrl, accessToken });
        client.setIdentityServerUrl(idBaseUrl);
    },
    openTab(name, options) {
        tabs.set(name, new Tab({ inputs: {}, baseUrl, ...options }));
        return tabs.get(name).begin();
    },
    // Opens the page that a mail's link leads to, and knows nothing but what stands in it.
    openLink(name, link, register) {
        const [app, fragment] = link.split("#");
        const parameters = new URLSearchParams(fragment.slice(fragment.indexOf("?")));
        const [baseUrl, sessionId, clientSecret, emailSid] = ["hs_url", "session_id", "client_secret", "sid"].map(
            (key) => parameters.get(key),
        );
        return commands.openTab(name, { app, register, baseUrl, sessionId, clientSecret, emailSid });
    },
    submitInTab: (name, auth) => tabs.get(name).submit(auth),
    pollInTab: (name) => tabs.get(name).poll(),
};

async function run(command) {
    const parameters = command.with ?? [];
    const own = commands[command.do];
    return own ? own(...parameters) : client[command.do](...parameters);
}

for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        answer = { ok: (await run(JSON.parse(line))) ?? null };
    } catch (error) {
        answer = { error: told(error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
}
