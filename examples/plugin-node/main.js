#!/usr/bin/env node
// The program: the forwarder of forwarder.js, served to a relay.
import * as forwarder from './forwarder.js';
import { main } from './pimrelay.js';

await main(forwarder);
