// Reads Bicep files into plain values: what they declare, and what each resource says.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Language, Parser } from 'web-tree-sitter'

await Parser.init()
const parser = new Parser()
parser.setLanguage(await Language.load(createRequire(import.meta.url).resolve('tree-sitter-bicep/tree-sitter-bicep.wasm')))

/** A value that only a deployment knows: a parameter, an output, a function's result. */
export class Unknown {
  constructor(text) {
    this.text = text
  }
}

/** A value that a condition chooses. */
export class Either {
  constructor(options) {
    this.options = options
  }
}

/** Everything that a value can turn out to be. */
export function outcomes(value) {
  return value instanceof Either ? value.options.flatMap(outcomes) : [value]
}

/** Everything that can stand at a path, such as 'properties.siteConfig.cors'; undefined is among it where a step may be missing. */
export function at(value, path) {
  let found = outcomes(value)
  for (const step of path.split('.')) {
    found = found.flatMap(v => outcomes(v instanceof Unknown ? v : v?.[step]))
  }
  return found
}

/**
 * Parses a file. The result has path, syntaxErrors, parameters, outputs, variables and types by name, resources, modules, and
 * uses: the names that expressions use, each with its line.
 */
export function parse(path, text = readFileSync(path, 'utf8')) {
  const root = parser.parse(text).rootNode
  const file = {
    path, text, syntaxErrors: root.hasError ? [syntaxError(root)] : [],
    targetScope: 'resourceGroup', parameters: new Map(), outputs: new Map(), variables: new Map(), types: new Map(),
    resources: [], modules: [], uses: [], locals: new Set(), duplicates: [],
  }
  let decorators = {}
  for (const node of root.namedChildren) {
    if (node.type === 'decorators') {
      decorators = readDecorators(node)
      continue
    }
    declare(file, node, decorators)
    decorators = {}
  }
  collectUses(file, root)
  return file
}

function syntaxError(node) {
  if (node.isError || node.isMissing) {
    return { line: lineOf(node), message: `cannot be read at ${JSON.stringify(node.text.slice(0, 60))}` }
  }
  for (const child of node.children) {
    if (child.hasError || child.isMissing) {
      return syntaxError(child)
    }
  }
  return { line: lineOf(node), message: 'cannot be read' }
}

function lineOf(node) {
  return node.startPosition.row + 1
}

function readDecorators(node) {
  const found = {}
  for (const decorator of node.namedChildren) {
    const call = decorator.namedChildren[0]
    const [name, args] = call.namedChildren
    found[name.text] = args.namedChildren.map(argument => evaluate(argument, null))
  }
  return found
}

function declare(file, node, decorators) {
  const line = lineOf(node)
  const children = node.namedChildren
  const add = (map, name, declaration) => {
    const taken = map === file.outputs ? [file.outputs] : [file.parameters, file.variables, file.types]
    if (taken.some(names => names.has(name))) {
      file.duplicates.push({ name, line })
    }
    map.set(name, { name, line, decorators, ...declaration })
  }
  switch (node.type) {
    case 'target_scope_assignment':
      file.targetScope = evaluate(children[0], file)
      break
    case 'parameter_declaration': {
      const [name, type, value] = children
      add(file.parameters, name.text, {
        type: readType(type), required: !value, get value() { return value && evaluate(value, file) },
      })
      break
    }
    case 'variable_declaration':
      add(file.variables, children[0].text, { get value() { return evaluate(children[1], file) } })
      break
    case 'output_declaration':
      add(file.outputs, children[0].text, { type: readType(children[1]), get value() { return evaluate(children[2], file) } })
      break
    case 'type_declaration':
      add(file.types, children[0].text, { properties: node.lastNamedChild.namedChildren.map(property => property.namedChildren[0].text) })
      break
    case 'resource_declaration':
      declareResource(file, node, null)
      break
    case 'module_declaration': {
      const [name, path] = children
      const { condition, body } = content(node)
      const object = evaluate(body, file)
      file.modules.push({ name: name.text, line, source: evaluate(path, file), condition, body: object, params: object.params ?? {} })
      file.locals.add(name.text)
      break
    }
    case 'metadata_declaration':
    case 'comment':
    case 'diagnostic_comment':
      break
    default:
      file.syntaxErrors.push({ line, message: `${node.type} is not understood` })
  }
}

function readType(node) {
  const inner = node.type === 'type' ? node.namedChildren[0] : node
  if (inner.type === 'union_type') {
    return { kind: 'string', allowed: inner.namedChildren.map(option => evaluate(option, null)) }
  }
  return { kind: inner.type === 'array_type' ? 'array' : inner.text }
}

// content finds the object of a declaration, inside its condition or loop.
function content(node) {
  let body = node.lastNamedChild
  let condition = null
  let loop = false
  while (body.type === 'if_statement' || body.type === 'for_statement') {
    if (body.type === 'if_statement') {
      condition = body.namedChildren[0].text
    } else {
      loop = true
    }
    body = body.lastNamedChild
  }
  return { condition, loop, body }
}

function declareResource(file, node, parent) {
  const name = node.namedChildren[0].text
  const [ownType, ownVersion] = evaluate(node.namedChildren[1], file).split('@')
  const { condition, loop, body } = content(node)
  const resource = {
    name, line: lineOf(node), file, parent, condition, loop,
    type: parent ? `${parent.type}/${ownType}` : ownType,
    version: ownVersion ?? parent?.version,
    existing: node.children.some(child => child.type === 'existing'),
    body: evaluate(body, file),
  }
  file.resources.push(resource)
  file.locals.add(name)
  for (const property of body.namedChildren) {
    const nested = property.namedChildren[0]
    if (nested?.type === 'resource_declaration') {
      declareResource(file, nested, resource)
    }
  }
}

/** The value of an expression, with the file's variables put in. */
function evaluate(node, file) {
  const unknown = new Unknown(node.text)
  switch (node.type) {
    case 'string':
      return readString(node) ?? unknown
    case 'number':
      return Number(node.text)
    case 'boolean':
      return node.text === 'true'
    case 'null':
      return null
    case 'parenthesized_expression':
      return evaluate(node.namedChildren[0], file)
    case 'array':
      return elements(node).map(element => evaluate(element, file))
    case 'object':
      return readObject(node, file)
    case 'ternary_expression': {
      const [, whenTrue, whenFalse] = elements(node)
      return new Either([evaluate(whenTrue, file), evaluate(whenFalse, file)])
    }
    case 'identifier':
      return file?.variables.has(node.text) ? file.variables.get(node.text).value : unknown
    case 'call_expression':
      return call(node, file) ?? unknown
    default:
      return unknown
  }
}

function elements(node) {
  return node.namedChildren.filter(child => child.type !== 'comment' && child.type !== 'diagnostic_comment')
}

// readString returns nothing for a string with an expression in it.
function readString(node) {
  let text = ''
  for (const part of node.namedChildren) {
    if (part.type === 'interpolation') {
      return undefined
    }
    text += part.type === 'escape_sequence' ? part.text.slice(1).replace('n', '\n') : part.text
  }
  return text
}

function readObject(node, file) {
  const object = {}
  for (const property of node.namedChildren) {
    if (property.type !== 'object_property' || property.namedChildren.length < 2) {
      continue
    }
    const key = property.namedChildren[0]
    const name = key.type === 'string' ? readString(key) ?? key.text : key.text
    if (name in object) {
      file?.duplicates.push({ name, line: lineOf(property) })
    }
    object[name] = evaluate(property.lastNamedChild, file)
  }
  return object
}

// call evaluates the functions that put values together; of others nothing is known.
function call(node, file) {
  const name = node.namedChildren[0].text
  const args = elements(node.namedChildren[1])
  if (name === 'union') {
    return combine(args.map(argument => evaluate(argument, file)), parts => Object.assign({}, ...parts))
  }
  if (name === 'concat') {
    return combine(args.map(argument => evaluate(argument, file)), parts => parts.flat())
  }
  return undefined
}

// combine applies a function to every combination of outcomes; parts of which nothing is known add nothing.
function combine(values, merge) {
  let combinations = [[]]
  for (const value of values) {
    combinations = combinations.flatMap(done => outcomes(value).map(next => [...done, next instanceof Unknown ? {} : next]))
  }
  return combinations.length === 1 ? merge(combinations[0]) : new Either(combinations.map(merge))
}

// collectUses finds every name that an expression uses, and the names that loops and lambdas make.
function collectUses(file, root) {
  const visit = node => {
    if (node.type === 'for_statement' || node.type === 'lambda_expression') {
      for (const child of node.namedChildren.slice(0, node.type === 'for_statement' ? -2 : -1)) {
        for (const name of child.text.match(/\w+/g)) {
          file.locals.add(name)
        }
      }
    }
    if (node.type === 'identifier' && isUse(node)) {
      file.uses.push({ name: node.text, line: lineOf(node), call: node.parent.type === 'call_expression' && node.parent.firstNamedChild.equals(node) })
    }
    node.namedChildren.forEach(visit)
  }
  visit(root)
}

function isUse(node) {
  const parent = node.parent
  const declares = /_declaration$/.test(parent.type) && parent.firstNamedChild.equals(node)
  const isKey = parent.type === 'object_property' && parent.firstNamedChild.equals(node)
  return !declares && !isKey && parent.type !== 'decorator'
}
