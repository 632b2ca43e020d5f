import { runMain } from '@mad/process';
import { readProvisionerConfig } from './config.ts';
import { startProvisioner } from './start.ts';

await runMain('provisioner', (deps) => startProvisioner(readProvisionerConfig(process.env), deps));
