"""What every call of the admin port needs that is more than looking: a token, bounds, errors.

A `Call` is described once: its route, what is read of a request, and its part of the OpenAPI
document come from there. Its handler takes what was asked and returns what is said, or raises a
`Problem`, which is said as RFC 9457 has it. Not here: what the calls do (`amsync.gateway.api`).
"""

from amsync.adminapi.application import MAX_BODY_BYTES, make_application
from amsync.adminapi.call import Asked, Call, Handler, JsonText, Octets, Parameter
from amsync.adminapi.openapi import describe
from amsync.adminapi.problem import Problem, bad

__all__ = [
    "MAX_BODY_BYTES",
    "Asked",
    "Call",
    "Handler",
    "JsonText",
    "Octets",
    "Parameter",
    "Problem",
    "bad",
    "describe",
    "make_application",
]
