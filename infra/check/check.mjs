// Checks the infrastructure without Azure: node infra/check/check.mjs [project folder]. Prints what is wrong and a summary;
// exits 1 if something is.

import { fileURLToPath } from 'node:url'
import { checkAzureYaml, checkManual, checkModules, checkParameters, checkRoutes, checkSettings } from './agreement.mjs'
import { Compiler, find } from './compiler.mjs'
import { compile, load } from './project.mjs'
import { checkRules, rules } from './rules.mjs'
import { checkValues } from './values.mjs'

/** The checks by name, in order. */
export const checks = {
  'compiler': checkDiagnostics,
  'values': checkValues,
  'modules': checkModules,
  'parameters file': checkParameters,
  'handler settings': checkSettings,
  'routes': checkRoutes,
  'azure.yaml': checkAzureYaml,
  'docs/deploy.md': checkManual,
  [`${Object.keys(rules).length} rules`]: checkRules,
}

// checkDiagnostics returns what the compiler and its linter have to say; a warning is wrong too.
function checkDiagnostics(project) {
  return project.diagnostics.map(({ source, range, code, message }) => ({
    where: `${source.replace(`${project.root}/`, '')}:${range.start.line + 1}`, message: `${code}: ${message}`,
  }))
}

async function main(root) {
  const command = find(root)
  if (!command) {
    console.log('There is no Bicep compiler on PATH or in ../shared/tools. Get one (az bicep install, or a release of Azure/bicep), and name it in BICEP.')
    return 1
  }
  const compiler = new Compiler(command)
  const project = load(root, await compile(compiler, root).finally(() => compiler.stop()))
  let failed = 0
  for (const [name, check] of Object.entries(checks)) {
    if (check === checkValues && !project.types) {
      console.log(`${name}: NOT RUN: there is no ../shared/bicep-types, nor a folder that BICEP_TYPES names`)
      continue
    }
    const findings = check(project)
    console.log(`${name}: ${findings.length === 0 ? 'ok' : `${findings.length} wrong`}`)
    for (const { where, message } of findings) {
      console.log(`  ${where}: ${message}`)
    }
    failed += findings.length
    if (!project.template) {
      break // the others look at what was compiled
    }
  }
  const resources = project.deployments.reduce((sum, deployment) => sum + deployment.resources.length, 0)
  console.log(failed === 0
    ? `The infrastructure is as it must be: ${project.bicep.length} files, ${resources} resources in ${project.deployments.length} deployments.`
    : `${failed} things are wrong.`)
  return failed === 0 ? 0 : 1
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = await main(process.argv[2] ?? fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, ''))
}
