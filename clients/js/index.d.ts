import type { PeerId, PeerMetadata } from "@automerge/automerge-repo/slim"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"

/**
 * Why a token is asked for.
 *
 * - `first`: the first connect, or the first after `retry()`.
 * - `reconnect`: the connection was lost, or didn't come about; the last token may still be good.
 * - `expired`: the server closed the connection because its token had expired.
 * - `refused`: the server didn't accept the last token; one more is tried, and no third.
 */
export type TokenReason = "first" | "reconnect" | "expired" | "refused"

export interface TokenRequest {
  reason: TokenReason
  /** Aborted when nobody waits for the token any more. */
  signal: AbortSignal
}

/** Why it waits before the next try. */
export type WaitReason =
  /** The connection was lost, or the server closed it; `detail` is what it said. */
  | "closed"
  /** There was no connection, and the server couldn't be asked why. */
  | "network"
  /** The server refuses for now (HTTP 429). */
  | "busy"
  /** The server can't do it just now (HTTP 503, or it can't judge a token for now). */
  | "unavailable"
  /** `getToken` threw or rejected. */
  | "token_failed"
  /** `getToken` took longer than `tokenTimeoutMs`. */
  | "token_timeout"

/** Why it has stopped; nothing but `retry()` starts it again. */
export type StopReason =
  /** `getToken` gave no token. */
  | "signed_out"
  /** Two tokens in a row were refused (HTTP 401). */
  | "unauthorized"
  /** The token is good, and who has it may not come in (HTTP 403). */
  | "forbidden"
  /** Access was withdrawn while connected (close code 4403). */
  | "withdrawn"
  /** `getToken` gave something that can't be a token. */
  | "bad_token"
  /** `disconnect()` was called, or the Repo was shut down, or it is not yet part of one. */
  | "disconnected"

export type AmsyncStatus =
  | { readonly state: "connecting"; readonly reason: TokenReason }
  | { readonly state: "connected" }
  | {
      readonly state: "waiting"
      readonly reason: WaitReason
      readonly retryInMs: number
      /** What the server said. */
      readonly detail?: string
    }
  | { readonly state: "stopped"; readonly reason: StopReason; readonly detail?: string }

export interface AmsyncClientOptions {
  /**
   * Called before every connect. Returns a token that is good now; null: there is none, and
   * it stops. If it throws or rejects it is asked again later.
   */
  getToken: (request: TokenRequest) => string | null | Promise<string | null>
  /** Called with every change. */
  onStatus?: (status: AmsyncStatus) => void
  /** The first window of time from which a pause is drawn; each next one is twice as long. Default 1000. */
  minRetryMs?: number
  /** The longest such window. Default 60000. */
  maxRetryMs?: number
  /** A connection that has lasted so long makes the next pause a short one again. Default 30000. */
  stableMs?: number
  /** How long `repo.find()` may wait for the first connection before a document is unavailable. Default 5000. */
  readyMs?: number
  /** How long `getToken` may take. Default 60000. */
  tokenTimeoutMs?: number
  /** How long it may take to be connected. Default 30000. */
  connectTimeoutMs?: number
  /** How long it may take to be told why there is no connection. Default 10000. */
  probeTimeoutMs?: number
  /** Allow ws: to other machines: the network can read the token. Default false. */
  allowInsecure?: boolean
  /** Where pauses come from: a number from 0 to 1. Default Math.random. */
  random?: () => number
  /** Instead of the platform's, or of `ws` in Node. */
  WebSocket?: typeof globalThis.WebSocket
  /** Instead of the platform's. */
  fetch?: typeof globalThis.fetch
}

/** automerge-repo's WebSocketClientAdapter, which brings a token each time it connects. */
export declare class AmsyncClientAdapter extends WebSocketClientAdapter {
  /** @throws TypeError An address or option that is not allowed. */
  constructor(url: string, options: AmsyncClientOptions)
  /** What `onStatus` was last told. */
  get status(): AmsyncStatus
  /** Try again at once: after a stop (somebody has signed in again), or instead of waiting. */
  retry(): void
  isReady(): boolean
  whenReady(): Promise<void>
  connect(peerId: PeerId, peerMetadata?: PeerMetadata): void
  disconnect(): void
  send(message: Parameters<WebSocketClientAdapter["send"]>[0]): void
  peerCandidate(remotePeerId: PeerId, peerMetadata: PeerMetadata): void
}
