// Runs the real Bicep compiler, where there is one.

import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'

/** compiler finds the compiler: BICEP, then PATH, then ../shared/tools/bicep beside the project. It returns nothing where there is none. */
export function compiler(root) {
  const candidates = [process.env.BICEP, 'bicep', join(root, '../shared/tools/bicep')].filter(Boolean)
  return candidates.find(path => spawnSync(path, ['--version']).status === 0)
}

/** checkCompiler builds and lints main.bicep, with every module; a warning is wrong too. */
export function checkCompiler(project) {
  const bicep = compiler(project.root)
  const file = join(project.root, 'infra/main.bicep')
  return [['build', '--stdout', file], ['lint', file]].flatMap(args => {
    const { status, stderr } = spawnSync(bicep, args, { encoding: 'utf8', maxBuffer: 64 << 20 })
    const lines = stderr.split('\n').filter(line => line.trim() !== '')
    const findings = lines.map(line => ({ where: `bicep ${args[0]}`, message: line.replace(`${project.root}/`, '') }))
    return status !== 0 && findings.length === 0 ? [{ where: `bicep ${args[0]}`, message: `exit ${status}` }] : findings
  })
}

/** Expander keeps a compiler running that says what deployments would make. stop must be called. */
export class Expander {
  #server
  #input = Buffer.alloc(0)
  #waiting = new Map()
  #folder
  #root

  constructor(root) {
    this.#root = root
    const parent = join(root, 'infra/check/node_modules/.cache')
    mkdirSync(parent, { recursive: true })
    this.#folder = mkdtempSync(join(parent, 'expand-'))
    this.#server = spawn(compiler(root), ['jsonrpc', '--stdio'], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#server.stdout.on('data', data => this.#receive(data))
    this.#server.on('exit', code => this.#waiting.forEach(answer => answer({ error: { message: `the compiler ended: ${code}` } })))
  }

  stop() {
    this.#server.kill()
    rmSync(this.#folder, { recursive: true })
  }

  /**
   * expand returns the resources that a deployment with the given parameters would make, or throws with the compiler's words.
   * What only Azure knows stays an expression: a text in brackets.
   */
  async expand(parameters) {
    const path = join(this.#folder, `${this.#waiting.size}.bicepparam`)
    const lines = Object.entries(parameters).map(([name, value]) => `param ${name} = ${literal(value)}`)
    writeFileSync(path, [`using '${relative(this.#folder, join(this.#root, 'infra/main.bicep'))}'`, ...lines, ''].join('\n'))
    const { result, error } = await this.#call('bicep/getSnapshot', {
      path,
      metadata: {
        location: 'westeurope',
        subscriptionId: '00000000-0000-0000-0000-00000000000a', tenantId: '00000000-0000-0000-0000-00000000000b',
      },
    })
    if (error) {
      const compiled = await this.#call('bicep/compileParams', { path, parameterOverrides: {} })
      throw new Error([error.message, ...(compiled.result?.diagnostics ?? []).map(diagnostic => diagnostic.message)].join('\n'))
    }
    const { predictedResources, diagnostics } = JSON.parse(result.snapshot)
    if (diagnostics.length > 0) {
      throw new Error(JSON.stringify(diagnostics))
    }
    return predictedResources
  }

  // Messages are framed as in the language server protocol: a header with the length, an empty line, JSON.
  #call(method, params) {
    const id = this.#waiting.size
    const body = JSON.stringify({ jsonrpc: '2.0', id, method, params })
    this.#server.stdin.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
    return new Promise(answer => this.#waiting.set(id, answer))
  }

  #receive(data) {
    this.#input = Buffer.concat([this.#input, data])
    for (;;) {
      const start = this.#input.indexOf('\r\n\r\n') + 4
      const length = Number(/Content-Length: (\d+)/.exec(this.#input.subarray(0, start))?.[1])
      if (start < 4 || this.#input.length < start + length) {
        return
      }
      const message = JSON.parse(this.#input.subarray(start, start + length))
      this.#input = this.#input.subarray(start + length)
      this.#waiting.get(message.id)(message)
    }
  }
}

function literal(value) {
  if (typeof value === 'object') {
    return `{\n${Object.entries(value).map(([name, item]) => `  ${name}: ${literal(item)}`).join('\n')}\n}`
  }
  return typeof value === 'string' ? `'${value}'` : String(value)
}
