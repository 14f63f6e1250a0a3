export { AmsyncClientAdapter } from "./adapter.js"
