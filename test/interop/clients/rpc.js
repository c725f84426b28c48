/** Lets the parent process call this one's methods by name, and hear of what happens in between. */
export function serve(methods) {
  process.on('message', async ({ id, method, args }) => {
    try {
      process.send({ id, result: (await methods[method](...args)) ?? null });
    } catch (error) {
      process.send({ id, error: { name: error.name ?? error.constructor.name, message: error.message } });
    }
  });
  process.on('disconnect', () => process.exit());
  process.on('uncaughtException', (error) => {
    process.send({ event: 'uncaught', data: error.stack });
  });
  process.send({ event: 'ready' });
}

export function tell(event, data) {
  process.send({ event, data });
}
