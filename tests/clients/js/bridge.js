// The AWS SDK for JavaScript v3 at a test's service: one call per line of JSON on standard input, one answer per line.
//
//   {"service": "ec2", "send": "DescribeVpcs", "input": {...}}                                one call
//   {"service": "ec2", "paginate": "DescribeSecurityGroups", "input": {...}, "pageSize": 5}   all pages, by its paginator
//   {"service": "ec2", "wait": "InstanceRunning", "input": {...}, "seconds": 60}              one of its waiters
//
// An answer is {"output": ...}, {"pages": [...]}, {"state": ...} or {"error": ...}. Where the services are, whom to trust
// and the credentials come from the environment, as for any program that uses the SDK. No retries: a test sees every error.
"use strict";

const readline = require("node:readline");

const packages = {
  ec2: require("@aws-sdk/client-ec2"),
  "ec2-instance-connect": require("@aws-sdk/client-ec2-instance-connect"),
};
const clients = {
  ec2: new packages.ec2.EC2Client({ maxAttempts: 1 }),
  "ec2-instance-connect": new packages["ec2-instance-connect"].EC2InstanceConnectClient({ maxAttempts: 1 }),
};

async function answer({ service, send, paginate, wait, input, pageSize, seconds }) {
  const sdk = packages[service];
  const client = clients[service];
  if (send) {
    return { output: await client.send(new sdk[`${send}Command`](input)) };
  }
  if (paginate) {
    const pages = [];
    for await (const page of sdk[`paginate${paginate}`]({ client, pageSize }, input)) {
      pages.push(page);
    }
    return { pages };
  }
  const settings = { client, maxWaitTime: seconds, minDelay: 1, maxDelay: 1 };
  return { state: (await sdk[`waitUntil${wait}`](settings, input)).state };
}

// What a program finds in the error that the SDK throws. `class` is one of its own exceptions where the model has one.
function found(error, { service }) {
  const known = Object.entries(packages[service]).filter(([, one]) => typeof one === "function" && /Exception$/.test(one.name));
  const classes = known.filter(([, one]) => error instanceof one).map(([name]) => name);
  const { name, message, $fault, $metadata } = error;
  return { name, message, fault: $fault, status: $metadata?.httpStatusCode, requestId: $metadata?.requestId, classes };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const call = JSON.parse(line);
    const said = await answer(call).catch((error) => ({ error: found(error, call) }));
    process.stdout.write(JSON.stringify(said) + "\n");
  }
}

main();
