"""The automerge-repo wire protocol and the messages between gateways and workers; sans-IO."""
