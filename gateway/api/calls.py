"""All calls that there are."""

from amsync.adminapi import Call
from amsync.gateway.api.access import AccessApi
from amsync.gateway.api.cluster import ClusterApi, Look
from amsync.gateway.api.documents import DocumentsApi
from amsync.gateway.api.place import FindGateway


def all_calls(find: FindGateway, look: Look) -> list[Call]:
    """The calls; `look` reads what the whole cluster does."""
    return [
        *ClusterApi(find, look).calls(),
        *DocumentsApi(find).calls(),
        *AccessApi(find).calls(),
    ]
