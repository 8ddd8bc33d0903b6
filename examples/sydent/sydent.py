"""A Sydent on this machine, to try proxying with; not for production.

Sydent is the reference identity server of Matrix. This runs it on loopback behind TLS, and what it needs around it: its
mails and SMS end in a sink that anybody can read, and a stand-in for a homeserver vouches for whoever asks.

    python3 -m venv sydent-venv
    sydent-venv/bin/pip install 'matrix-sydent[prometheus]==2.6.1'
    sydent-venv/bin/python examples/sydent/sydent.py --dir sydent-data

(The extra is no choice: Sydent 2.6.1 does not start without that package.)

Once it is ready, it prints one line of JSON: the name of the identity server, the file with the authority that signed
its certificate, the name of the homeserver, and a configuration for threepid that trusts this Sydent although it is on
this machine. To get an access token of `@alice:localhost:8444`, and to see what
Sydent has sent to people so far:

    curl --cacert sydent-data/ca.pem https://localhost:8443/_matrix/identity/v2/account/register \\
        -d '{"matrix_server_name": "localhost:8444", "access_token": "alice"}'
    curl --cacert sydent-data/ca.pem https://localhost:8443/_sink/messages
"""

import argparse
import configparser
import contextlib
import datetime
import email.policy
import ipaddress
import json
import logging
import os
import pathlib
import socketserver
import sys
import threading

# This file's own folder, where it would be found in the place of the package of the same name.
del sys.path[0]

import sydent.sms.openmarket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sydent.config import SydentConfig
from sydent.http.httpcommon import SizeLimitingRequest
from sydent.sydent import Sydent, setup_logging
from twisted.internet import reactor, ssl
from twisted.web.resource import Resource
from twisted.web.server import Site

# That the server is on this machine, and certified by nobody, is what takes most of this.
THREEPID = """\
[identity_servers]
trusted = ["{name}"]

[outbound]
allow = ["127.0.0.0/8", "::1"]
ca_files = ["{ca_file}"]
"""

# The package does not bring the templates of Sydent's repository, and can not write a mail without one.
MAIL = """\
Date: {{ date|safe }}
From: {{ from|safe }}
To: {{ to|safe }}
Message-ID: {{ messageid|safe }}
Subject: Confirm your email address
Content-Type: text/plain; charset=UTF-8

Somebody asked, from {{ ipaddress }}, to use this address on Matrix. If it was you, open

{{ link|safe }}

or type this code into your app: {{ token }}
"""
PAGE = "<!doctype html><title>Sydent</title><p>%(message)s</p>\n"
AUTHORITY = "Authority of a Sydent to try"

# What people would have got, newest last: medium, to, text.
MESSAGES = []


class Mailbox(socketserver.StreamRequestHandler):
    """A mail server that keeps what it gets; enough of SMTP for Python's own client, which Sydent uses."""

    def handle(self):
        recipients = []
        self.wfile.write(b"220 sink\r\n")
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            match verb.upper():
                case "QUIT":
                    return self.wfile.write(b"221 bye\r\n")
                case "RCPT":
                    recipients.append(rest.partition("<")[2].partition(">")[0])
                case "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    self.keep(recipients)
                    recipients = []
            self.wfile.write(b"250 fine\r\n")

    def keep(self, recipients):
        lines = iter(self.rfile.readline, b".\r\n")
        data = b"".join(line.removeprefix(b".") for line in lines)
        text = email.message_from_bytes(data, policy=email.policy.default).get_content()
        MESSAGES.extend({"medium": "email", "to": to, "text": text} for to in recipients)


def keep_sms(request):
    """What OpenMarket, the one provider of SMS that Sydent knows, is asked to send."""
    sms = json.load(request.content)["mobileTerminate"]
    MESSAGES.append({"medium": "msisdn", "to": sms["destination"]["address"], "text": sms["message"]["content"]})
    # OpenMarket names its ticket in this header, and Sydent logs an error where it is missing.
    request.setHeader("Location", "/sms/1")
    return {}


def put(root, path, function):
    """Answers a path with the JSON that a function makes of the request."""

    def render(request):
        request.setHeader("Content-Type", "application/json")
        return json.dumps(function(request)).encode()

    for part in path.encode().split(b"/"):
        if part not in root.children:
            root.putChild(part, Resource())
        root = root.children[part]
    root.render = render


def start_homeserver(certificate, port):
    """A stand-in for a homeserver, whose users have their names as OpenID tokens; the name of it."""
    root = Resource()
    server = reactor.listenSSL(port, Site(root), certificate.options(), interface="127.0.0.1")
    name = f"localhost:{server.getHost().port}"

    def user(request):
        return {"sub": f"@{request.args[b'access_token'][0].decode()}:{name}"}

    put(root, "_matrix/federation/v1/openid/userinfo", user)
    # Sydent tells a homeserver what was bound, again and again until it listens.
    put(root, "_matrix/federation/v1/3pid/onbind", lambda request: {})
    return name


def make_certificate(folder):
    """The certificate for this machine, made at the first start by an authority that can sign nothing more then."""
    server, ca = folder / "server.pem", folder / "ca.pem"
    if not ca.exists():
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        server.write_bytes(sign("localhost", key, ca_key, x509.SubjectAlternativeName(names)) + private)
        # Nine bits in the order of the standard, of which the sixth is: signs certificates.
        usage = x509.KeyUsage(*(bit == 5 for bit in range(9)))
        # Last, since it tells that all is there.
        ca.write_bytes(sign(AUTHORITY, ca_key, ca_key, usage))
    return ssl.PrivateCertificate.loadPEM(server.read_bytes())


def sign(name, key, ca_key, extension):
    """A certificate of the authority."""
    now = datetime.datetime.now(datetime.timezone.utc)
    issuer, subject = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, of)]) for of in (AUTHORITY, name))
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=key is ca_key, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(extension, critical=key is ca_key)
        .sign(ca_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def configure(folder, name, mail_port, with_terms):
    """Sydent's configuration, into which it writes its signing key by itself."""
    brand = folder / "templates" / "matrix-org"
    brand.mkdir(parents=True, exist_ok=True)
    (brand / "verification_template.eml.j2").write_text(MAIL)
    (brand / "verify_response_template.html").write_text(PAGE)
    policy = {"version": "1", "langs": {"en": {"name": "Rules", "url": f"https://{name}/_sink/terms"}}}
    # YAML, of which JSON is a part.
    (folder / "terms.yaml").write_text(json.dumps({"master_version": "1", "docs": {"rules": policy}}))
    general = {
        "server.name": name,
        "log.path": folder / "sydent.log",
        "pidfile.path": folder / "sydent.pid",
        "templates.path": folder / "templates",
        "terms.path": folder / "terms.yaml" if with_terms else "",
        # Sydent would not connect to this machine, and here all of its peers live.
        "ip.whitelist": "127.0.0.0/8,::1/128",
    }
    # Its own listener, without TLS; nobody needs to know its port.
    http = {"clientapi.http.bind_address": "127.0.0.1", "clientapi.http.port": 0, "client_http_base": f"https://{name}"}
    mail = {"email.smtphost": "127.0.0.1", "email.smtpport": mail_port, "email.hostname": "localhost"}

    file = folder / "sydent.conf"
    written = configparser.ConfigParser(interpolation=None)
    written.read(file)
    written.read_dict({"general": general, "db": {"db.file": folder / "sydent.db"}, "http": http, "email": mail})
    with file.open("w") as output:
        written.write(output)
    config = SydentConfig()
    # Sydent tells here that it made a key; our standard output is for the one line.
    with contextlib.redirect_stdout(None):
        config.parse_config_file(str(file))
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", required=True, type=pathlib.Path, help="where its state is kept")
    parser.add_argument("--port", type=int, default=8443, help="the homeserver's is the next; 0: any two")
    parser.add_argument("--terms", action="store_true", help="demand that accounts agree to terms")
    given = parser.parse_args()
    # What is written below is for nobody else.
    os.umask(0o077)
    folder = given.dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    certificate = make_certificate(folder)
    # Sydent verifies the homeserver as it always does, just by our authority.
    os.environ["SSL_CERT_FILE"] = str(folder / "ca.pem")
    # A thread of its own, since Sydent stands still while it sends a mail.
    mailbox = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox)
    mailbox.daemon_threads = True
    threading.Thread(target=mailbox.serve_forever, daemon=True).start()

    # Bound before Sydent exists, since it has to know its own name; nothing is served before it runs.
    site = Site(Resource(), SizeLimitingRequest)
    listener = reactor.listenSSL(given.port, site, certificate.options(), interface="127.0.0.1")
    name = f"localhost:{listener.getHost().port}"
    config = configure(folder, name, mailbox.server_address[1], given.terms)
    setup_logging(config)
    # Some of Sydent's calls to its log do not fit; Python would tell of each on standard error.
    logging.raiseExceptions = False
    server = Sydent(config)
    site.resource = server.clientApiHttpServer.factory.resource
    put(site.resource, "_sink/messages", lambda request: MESSAGES)
    put(site.resource, "_sink/terms", lambda request: "Be kind.")
    openmarket = Resource()
    put(openmarket, "sms", keep_sms)
    sms = reactor.listenTCP(0, Site(openmarket), interface="127.0.0.1")
    # Sydent has no setting for this: the address of its provider is a constant.
    sydent.sms.openmarket.API_BASE_URL = f"http://127.0.0.1:{sms.getHost().port}/sms"
    homeserver = start_homeserver(certificate, given.port and given.port + 1)

    ca_file, threepid = folder / "ca.pem", folder / "threepid.toml"
    threepid.write_text(THREEPID.format(name=name, ca_file=ca_file))
    ready = {"identity_server": name, "ca_file": str(ca_file), "homeserver": homeserver, "threepid": str(threepid)}
    reactor.callWhenRunning(lambda: print(json.dumps(ready), flush=True))
    server.run()


if __name__ == "__main__":
    main()
