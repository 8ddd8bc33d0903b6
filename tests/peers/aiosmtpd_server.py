"""aiosmtpd on two ports of loopback: STARTTLS and login demanded, and TLS from the first byte on.

Arguments: certificate, key, user, password. Writes JSON lines: first the ports, then each mail that it took.
"""

import asyncio
import json
import logging
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


def say(line):
    print(json.dumps(line), flush=True)


class Handler:
    async def handle_DATA(self, server, session, envelope):
        say(
            {
                "tls": session.ssl is not None or server.transport.get_extra_info("cipher") is not None,
                "user": session.auth_data.login.decode() if session.authenticated else None,
                "hello": session.host_name,
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "data": envelope.content.decode(),
            }
        )
        return "250 2.0.0 taken"


async def main(certificate, key, user, password):
    # Handshakes that fail are what some tests are about.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    def authenticate(server, session, envelope, mechanism, data):
        right = data.login == user.encode() and data.password == password.encode()
        return AuthResult(success=right, handled=False, auth_data=data)

    def starttls():
        return SMTP(
            Handler(),
            hostname="localhost",
            enable_SMTPUTF8=True,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
        )

    def implicit():
        # It does not know that it sits behind TLS, and would refuse the login for that.
        return SMTP(
            Handler(),
            hostname="localhost",
            auth_require_tls=False,
            auth_required=True,
            authenticator=authenticate,
        )

    loop = asyncio.get_running_loop()
    first = await loop.create_server(starttls, "127.0.0.1", 0)
    second = await loop.create_server(implicit, "127.0.0.1", 0, ssl=context)
    say({"starttls": first.sockets[0].getsockname()[1], "implicit": second.sockets[0].getsockname()[1]})
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
