/**
 * Imported before rhea, for its effect: the `debug` package that rhea logs through prints tokens in clear text
 * (`rhea:message`) and in hex (`rhea:raw`) as soon as `DEBUG` asks for it, and reads that variable when it loads.
 */
delete process.env['DEBUG'];
