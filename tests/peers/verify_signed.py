"""Checks a signature with signedjson, which homeservers use: reads one JSON object from its input, and ends with 0 if it is good.

    {"signed": {…}, "name": "localhost:8448", "key_id": "ed25519:0", "public_key": "base64"}
"""

import json
import sys

from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from unpaddedbase64 import decode_base64

given = json.load(sys.stdin)
key = decode_verify_key_bytes(given["key_id"], decode_base64(given["public_key"]))
verify_signed_json(given["signed"], given["name"], key)
