// Runs the Bicep compiler.

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'

/** find returns the command of the compiler: BICEP, then PATH, then ../shared/tools beside the project; nothing where there is none. */
export function find(root) {
  const candidates = process.env.BICEP ? [process.env.BICEP] : ['bicep', join(root, '../shared/tools/bicep')]
  return candidates.find(path => spawnSync(path, ['--version']).status === 0)
}

/** Compiler is a compiler that keeps running, for its start takes seconds. stop must be called. */
export class Compiler {
  #server
  #input = Buffer.alloc(0)
  #waiting = new Map()
  #folder = mkdtempSync(join(tmpdir(), 'expand-'))

  constructor(command) {
    // It does not live long enough to earn back what .NET spends on faster code and shorter pauses.
    const env = { ...process.env, DOTNET_TieredPGO: '0', DOTNET_gcConcurrent: '0' }
    this.#server = spawn(command, ['jsonrpc', '--stdio'], { stdio: ['pipe', 'pipe', 'inherit'], env })
    this.#server.stdout.on('data', data => this.#receive(data))
    this.#server.on('exit', code => this.#waiting.forEach(answer => answer({ error: { message: `the compiler ended: ${code}` } })))
  }

  stop() {
    this.#server.kill()
    rmSync(this.#folder, { recursive: true })
  }

  /** compile returns what the compiler and its linter have to say of infra/main.bicep below root, and the template; null after errors. */
  async compile(root) {
    const { result, error } = await this.#call('bicep/compile', { path: join(root, 'infra/main.bicep') })
    if (error) {
      throw new Error(error.message)
    }
    return { diagnostics: result.diagnostics, template: result.success ? JSON.parse(result.contents) : null }
  }

  /**
   * expand returns the resources that a deployment with the given parameters would make, or throws with the compiler's words.
   * What only Azure knows stays an expression: a text in brackets.
   */
  async expand(root, parameters) {
    const path = join(this.#folder, `${this.#waiting.size}.bicepparam`)
    const lines = Object.entries(parameters).map(([name, value]) => `param ${name} = ${literal(value)}`)
    writeFileSync(path, [`using '${relative(this.#folder, join(root, 'infra/main.bicep'))}'`, ...lines, ''].join('\n'))
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
