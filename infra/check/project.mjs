// Gathers what the checks look at: the Bicep files, and what they must agree with.

import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { parse } from './bicep.mjs'

/** load reads the project at root. The resource types are null where their folder is missing. */
export function load(root, typesFolder = process.env.BICEP_TYPES ?? join(root, '../shared/bicep-types')) {
  const infra = join(root, 'infra')
  const read = path => readFileSync(join(root, path), 'utf8')
  const files = bicepFiles(infra).map(path => {
    const file = parse(path)
    file.name = relative(root, path)
    return file
  })
  const typesPath = join(typesFolder, 'types.json')
  return {
    root, files,
    main: files.find(file => file.name === 'infra/main.bicep'),
    file: name => files.find(file => file.name === name),
    resources: files.flatMap(file => file.resources),
    workbookText: read('infra/modules/workbook.json'),
    parametersText: read('infra/main.parameters.json'),
    config: read('handler/config.go'),
    azureYaml: read('azure.yaml'),
    manual: read('docs/deploy.md'),
    host: JSON.parse(read('host.json')),
    functions: readdirSync(join(root, 'functions')).map(name => ({
      name, trigger: JSON.parse(read(`functions/${name}/function.json`)).bindings.find(binding => binding.type === 'httpTrigger'),
    })),
    isExecutable: path => existsSync(join(root, path)) && (statSync(join(root, path)).mode & 0o111) !== 0,
    types: existsSync(typesPath) ? JSON.parse(readFileSync(typesPath, 'utf8')) : null,
  }
}

function bicepFiles(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) {
      return entry.name === 'check' ? [] : bicepFiles(path)
    }
    return entry.name.endsWith('.bicep') ? [path] : []
  }).sort()
}
