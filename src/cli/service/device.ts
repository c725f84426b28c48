import { Option } from 'commander';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { collect, count } from '../values.js';
import { addRestOptions, withRest, type RestFlags } from './rest-options.js';

export interface DeviceFlags extends RestFlags {
  module?: string;
}

export interface DeviceChangeFlags extends DeviceFlags {
  disable?: boolean;
  enable?: boolean;
  reason?: string;
  x509Thumbprint?: string[];
  x509Ca?: boolean;
  newKeys?: boolean;
  edge?: boolean;
}

export interface DeviceListFlags extends RestFlags {
  where?: string;
  top?: number;
}

export interface DeviceShowFlags extends DeviceFlags {
  keys?: boolean;
}

export interface ConnectionStringFlags extends DeviceFlags {
  secondary?: boolean;
  gateway?: string;
}

/** `iothub-service device`: the registry. */
export function deviceCommand(io: Io): Subcommand {
  const device = new Subcommand('device')
    .description('The registry of the hub: which devices there are, and with what they prove themselves.')
    .examples(
      'iothub-service device add dev1',
      'iothub-service device connection-string dev1 > dev1.txt',
      'iothub-service device list "boiler-*" --where "tags.site = \'north\'"',
      'iothub-service device set dev1 --disable --reason stolen',
      'iothub-service device rm dev1 dev2',
    )
    .exits('ok', ['data', 'it is there already, or the hub refused it'], 'no-device', 'refused');
  addAdd(io, device);
  addList(io, device);
  addShow(io, device);
  addSet(io, device);
  addRemove(io, device);
  addConnectionString(io, device);
  return device;
}

function addAdd(io: Io, device: Subcommand): void {
  const add = device
    .verb('add', 'Register a device, or with --module a module of one.')
    .argument('<device>', 'device id');
  addAuthentication(add);
  add.option('--disable', 'it may not connect yet').option('--edge', 'it is a gateway (IoT Edge)');
  addRestOptions(add).action(async (deviceId: string, flags: DeviceChangeFlags) => {
    const { addDevice } = await import('./devices.js');
    await withRest(io, flags, (rest, signal) => addDevice(io, rest, { deviceId, flags }, signal));
  });
}

function addList(io: Io, device: Subcommand): void {
  const list = device
    .verb('list', 'List the devices, one on each line.')
    .argument('[pattern]', 'those whose id matches; with * and ?')
    .option('--where <condition>', 'of the query language of IoT Hub, over their twins')
    .option('--top <n>', 'so many at most', count(1));
  addRestOptions(list).action(async (pattern: string | undefined, flags: DeviceListFlags) => {
    const { listDevices } = await import('./devices.js');
    await withRest(io, flags, (rest, signal) => listDevices(io, rest, { pattern, flags }, signal));
  });
}

function addShow(io: Io, device: Subcommand): void {
  const show = device
    .verb('show', 'Print what the registry has of a device.')
    .examples('iothub-service device show dev1', 'iothub-service device show dev1 --keys')
    .argument('<device>', 'device id')
    .option('--module <id>', 'a module of the device')
    .option('--keys', 'its keys too');
  addRestOptions(show).action(async (deviceId: string, flags: DeviceShowFlags) => {
    const { showDevice } = await import('./devices.js');
    await withRest(io, flags, (rest, signal) => showDevice(io, rest, { deviceId, flags }, signal));
  });
}

function addSet(io: Io, device: Subcommand): void {
  const set = device
    .verb('set', 'Change a device: whether it may connect, and with what.')
    .argument('<device>', 'device id');
  addAuthentication(set);
  set
    .addOption(new Option('--enable', 'it may connect').conflicts('disable'))
    .option('--disable', 'it may not connect; what it has open is closed')
    .option('--reason <text>', 'why');
  addRestOptions(set).action(async (deviceId: string, flags: DeviceChangeFlags) => {
    const { setDevice } = await import('./devices.js');
    await withRest(io, flags, (rest, signal) => setDevice(io, rest, { deviceId, flags }, signal));
  });
}

function addRemove(io: Io, device: Subcommand): void {
  const remove = device
    .verb('rm', 'Remove devices, with their modules, twins and waiting commands.')
    .argument('<device...>', 'device ids')
    .option('--module <id>', 'only this module of the device');
  addRestOptions(remove).action(async (deviceIds: string[], flags: DeviceFlags) => {
    const { removeDevices } = await import('./devices.js');
    await withRest(io, flags, (rest, signal) => removeDevices(rest, { deviceIds, flags }, signal));
  });
}

function addConnectionString(io: Io, device: Subcommand): void {
  const command = device
    .verb('connection-string', 'Print the connection string of a device. Whoever has it is the device.')
    .argument('<device>', 'device id')
    .option('--module <id>', 'a module of the device')
    .option('--secondary', 'with the secondary key')
    .option('--gateway <host>', 'for a device that connects to this IoT Edge gateway');
  addRestOptions(command).action(async (deviceId: string, flags: ConnectionStringFlags) => {
    const { printConnectionString } = await import('./devices.js');
    await withRest(io, flags, (rest, signal, { host }) =>
      printConnectionString(io, rest, { deviceId, flags, host }, signal),
    );
  });
}

function addAuthentication(command: Subcommand): void {
  const authentication = (option: Option): Option => option.helpGroup('Authentication:');
  command
    .option('--module <id>', 'a module of the device')
    .addOption(
      authentication(
        new Option(
          '--x509-thumbprint <hex>',
          'SHA-1 or SHA-256 of its certificate; twice, for the one that comes after it',
        )
          .argParser(collect)
          .conflicts(['x509Ca', 'newKeys']),
      ),
    )
    .addOption(
      authentication(
        new Option('--x509-ca', 'a certificate of an authority that the hub knows').conflicts('newKeys'),
      ),
    )
    .addOption(authentication(new Option('--new-keys', 'new symmetric keys, made by the hub')));
}
